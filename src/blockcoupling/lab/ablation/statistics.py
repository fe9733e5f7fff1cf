"""Ablation damage against coupling and baseline predictors, one checkpoint at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from blockcoupling.config.damage import TREATMENTS
from blockcoupling.errors import UserError
from blockcoupling.lab.ablation.baselines import Baseline, at_places, baselines, of_one
from blockcoupling.lab.ablation.mantel import mantel
from blockcoupling.progress import Progress
from blockcoupling.statistics.multiplicity import adjust
from blockcoupling.statistics.tables import write_tables

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

OUTCOMES = ("kl", "loss_change")
"""Damage at prompts (KL, nats a token) and on held-out text (change of loss, nats a token)."""

ONE, TWO = "one", "two"
_GIVEN: Mapping[str, Sequence[tuple[str, ...]]] = {
    TWO: [(), ("distance",), ("distance", "block_influence")],
    ONE: [(), ("block_influence",)],
}
_OF = ["model", "checkpoint", "treatment", "blocks"]


def write_damage_statistics(
    catalog: Catalog,
    out: Path,
    *,
    k: int,
    variant: str,
    ks: Sequence[int],
    permutations: int,
    seed: int,
) -> dict[str, Path]:
    """Write the damage with its predictors by blocks, and their correlations.

    Args:
        catalog: entries of the kinds damage, miscoupling, spectra, svd.
        out: the table of correlations; `damage_pairs.parquet` is written to the same folder.
        k: of the headline mis-coupling.
        variant: of the headline mis-coupling.
        ks: further K of that variant.
        permutations: of blocks; see `mantel`.
        seed: of the permutations.

    Returns:
        The files by kind, `damage_statistics` and `damage_pairs`.

    Raises:
        UserError: no damage was measured.
    """
    damage = catalog.search(kind="damage")
    if not len(damage):
        raise UserError(
            "the catalog has no ablation damage: does the study have a section `damage`?"
        )
    table = damage.frame()
    whole = sorted({*ks, k})
    rows: list[dict[str, Any]] = []
    pairs: list[pd.DataFrame] = []
    checkpoints = list(groups(table, "model", "checkpoint"))
    with Progress(len(checkpoints), "permuting", "checkpoint") as progress:
        for model, checkpoint, own in checkpoints:
            measured = catalog.search(model=model, checkpoint=checkpoint)
            found = baselines(measured, list(own["dataset"].unique()), whole, k, variant)
            who = {"model": model, "checkpoint": checkpoint}
            means = mean_damage(own)
            pairs.append(with_baselines(means, found, k, variant).assign(**who))
            rows += [
                {**who, **row, "seed": seed} for row in relate(means, found, permutations, seed)
            ]
            progress.advance()
    result = pd.DataFrame(rows)
    result["headline"] = ~(result["predictor"] == "miscoupling") | (
        result["k"].eq(k) & result["variant"].eq(variant)
    )
    by = [*_OF, "outcome", "given"]
    result = adjust(result, by=by, columns=["p"])
    joined = pd.concat(pairs, ignore_index=True)
    joined = joined[[*_OF, *(name for name in joined if name not in _OF)]]
    tables = {"damage_statistics": result, "damage_pairs": joined.assign(k=k, variant=variant)}
    return write_tables(tables, out)


def mean_damage(table: pd.DataFrame) -> pd.DataFrame:
    """Average one checkpoint's damage over the texts of each dataset, then over datasets.

    Returns:
        Columns treatment, blocks (`one`, `two`), block, block_other, kl (over prompts),
        loss_change (over held-out passages), reason.
    """
    keys = ["treatment", "block", "block_other"]
    means = {}
    for outcome, kind in zip(OUTCOMES, ("prompt", "heldout"), strict=True):
        own = table[table["kind"] == kind].groupby(["dataset", *keys])[outcome].mean()
        means[outcome] = own.groupby(keys).mean()
    result = pd.DataFrame(means)
    result["reason"] = table.groupby(keys)["reason"].first()
    result = result.reset_index()
    result.insert(1, "blocks", np.where(result["block"] == result["block_other"], ONE, TWO))
    return result


def relate(
    means: pd.DataFrame, found: Mapping[Baseline, np.ndarray], permutations: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Correlate damage with every baseline, by treatment and outcome.

    Args:
        means: as `mean_damage` returns them.
        found: as `baselines` returns them.
        permutations: of blocks.
        seed: of the permutations.

    Yields:
        treatment, blocks, outcome, predictor, k, variant, given (names of the covariates),
        rho, p, entries, permutations, exact.
    """
    size = len(found[Baseline("distance")])
    for treatment, blocks, own in groups(means, "treatment", "blocks"):
        shaped = {each: _shaped(x, treatment, blocks, size) for each, x in found.items()}
        if blocks == ONE:
            shaped[Baseline("depth")] = np.arange(1.0, size + 1)
            del shaped[Baseline("distance")]
            shaped.pop(Baseline("cosine_distance"), None)
        for outcome in OUTCOMES:
            y = np.full((size, size), np.nan)
            y[own["block"] - 1, own["block_other"] - 1] = own[outcome]
            y = np.diagonal(y) if blocks == ONE else y
            if not np.isfinite(y).any():
                continue
            for given in _GIVEN[blocks]:
                held = [shaped[Baseline(name)] for name in given if Baseline(name) in shaped]
                if len(held) < len(given):
                    continue
                for each, x in shaped.items():
                    if each.name not in given:
                        related = mantel(y, x, held, permutations=permutations, seed=seed)
                        yield {
                            "treatment": treatment,
                            "blocks": blocks,
                            "outcome": outcome,
                            "predictor": each.name,
                            "k": each.k,
                            "variant": each.variant,
                            "given": ", ".join(given),
                            **related._asdict(),
                        }


def groups(table: pd.DataFrame, one: str, two: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Groups of rows by two columns, in the order of their first rows."""
    for (first, second), own in table.groupby([one, two], sort=False):
        yield str(first), str(second), own


def _shaped(values: np.ndarray, treatment: Any, blocks: Any, size: int) -> np.ndarray:
    if blocks == ONE:
        return of_one(values)
    places = "second" if TREATMENTS[treatment].ordered else "both"
    return at_places(values, places, size)


def with_baselines(
    means: pd.DataFrame, found: Mapping[Baseline, np.ndarray], k: int, variant: str
) -> pd.DataFrame:
    """The damage of every change with the values of the baselines."""
    parts = []
    size = len(found[Baseline("distance")])
    for treatment, blocks, own in groups(means, "treatment", "blocks"):
        part = own.copy()
        i, j = own["block"].to_numpy() - 1, own["block_other"].to_numpy() - 1
        for each, values in found.items():
            if each.name == "miscoupling" and (each.k, each.variant) != (k, variant):
                continue
            shaped = _shaped(values, treatment, blocks, size)
            part[each.name] = shaped[i] if blocks == ONE else shaped[i, j]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
