"""What several figures read from the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from blockcoupling.statistics.points import PROMPT, at_last_token, checkpoint_facts

if TYPE_CHECKING:
    import xarray as xr

    from blockcoupling.catalog import Catalog


class NothingToShow(Exception):
    """A study has no data for a figure; the message says what is missing."""


class Settings(NamedTuple):
    """Which coupling a figure is of."""

    k: int
    variant: str


class Ends(NamedTuple):
    """The two checkpoints of a model that are compared; either may be missing."""

    model: str
    untrained: str | None
    trained: str | None


def settings(catalog: Catalog, k: int | None = None, variant: str | None = None) -> Settings:
    """Return the K and the variant asked for, or else those of the study's statistics."""
    if k is None or variant is None:
        table = catalog.one(kind="predictors").read(columns=["k", "variant"])
        k = int(table["k"].iloc[0]) if k is None else k
        variant = str(table["variant"].iloc[0]) if variant is None else variant
    return Settings(k, variant)


def ends(catalog: Catalog) -> list[Ends]:
    """Return the untrained and the final checkpoint of each model, the smallest model first."""
    facts = checkpoint_facts(catalog)
    measured = set(catalog.search(kind="coupling").facets().get("model", []))
    facts = facts[facts["model"].isin(measured)].sort_values(
        ["parameters", "depth", "model", "step"]
    )
    return [
        Ends(
            str(model),
            _first(own.loc[own["untrained"], "checkpoint"]),
            _first(own.loc[own["final"], "checkpoint"]),
        )
        for model, own in facts.groupby("model", sort=False)
    ]


def ends_of(catalog: Catalog, most: int | None = None) -> list[tuple[str, str, str]]:
    """Return (model, checkpoint, `untrained` or `trained`) of all :func:`ends`, smallest first.

    Args:
        catalog: has the model records.
        most: number of models at most, chosen by :func:`largest`.

    Raises:
        NothingToShow: no model was measured.

    """
    pairs = ends(catalog) if most is None else largest(ends(catalog), most)
    found = [
        (pair.model, checkpoint, state)
        for pair in pairs
        for checkpoint, state in ((pair.untrained, "untrained"), (pair.trained, "trained"))
        if checkpoint is not None
    ]
    if not found:
        raise NothingToShow("No model of this study was measured.")
    return found


def first_prompt(catalog: Catalog, model: str, checkpoint: str) -> xr.Dataset | None:
    """Return the part of the store about a checkpoint's first prompt; None without a store."""
    found = catalog.search(kind="svd", model=model, checkpoint=checkpoint)
    return found[next(iter(found))].read().isel(prompt=0) if len(found) else None


def largest(pairs: list[Ends], most: int) -> list[Ends]:
    """Return a given number of models: the largest with an untrained checkpoint, then others.

    Args:
        pairs: the smallest model first, as :func:`ends` returns them; that order is kept.
        most: number of models.

    """
    chosen = sorted(pairs, key=lambda pair: None not in pair)[-most:]
    return [pair for pair in pairs if pair in chosen]


def _first(names: pd.Series) -> str | None:
    return None if names.empty else str(names.iloc[0])


def at_last(
    catalog: Catalog, kind: str, checkpoints: list[tuple[str, str]], **options: Any
) -> pd.DataFrame:
    """Read one kind of table for some (model, checkpoint), at each prompt's last token.

    Args:
        catalog: where to read.
        kind: `coupling`, `locality`, `singular_values`, ….
        checkpoints: which.
        options: passed to the Parquet reader (`filters`, `columns`).

    """
    tables = []
    for model, checkpoint in checkpoints:
        own = catalog.search(model=model, checkpoint=checkpoint)
        last = own.search(kind="trajectory").frame(
            columns=[*PROMPT, "token"], filters=[("is_last", "==", True)]
        )
        table = own.search(kind=kind).frame(**options)
        tables.append(at_last_token(table, last.rename(columns={"token": "last"})))
    return pd.concat(tables, ignore_index=True)
