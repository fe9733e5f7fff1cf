"""Damage held against coupling and its rivals, checkpoint by checkpoint, by permuted blocks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from blockcoupling.atomic import replacing
from blockcoupling.config.damage import TREATMENTS
from blockcoupling.errors import UserError
from blockcoupling.lab.ablation.baselines import Rival, at_places, of_one, rivals
from blockcoupling.lab.ablation.mantel import mantel
from blockcoupling.progress import Progress
from blockcoupling.statistics.multiplicity import adjust

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

logger = logging.getLogger(__name__)

OUTCOMES = ("kl", "loss_change")
"""Damage at prompts (KL, nats a token) and to the held-out text (change of loss, likewise)."""

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
    """Write the damage by blocks beside its rivals, and what goes with what.

    Args:
        catalog: entries of the kinds damage, miscoupling, spectra, svd.
        out: the table of statistics; the one of blocks goes beside it.
        k: of the headline mis-coupling.
        variant: likewise.
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
        raise UserError("the catalog has no damage to be held against anything: section `damage`")
    table = damage.frame()
    whole = sorted({*ks, k})
    rows: list[dict[str, Any]] = []
    beside: list[pd.DataFrame] = []
    checkpoints = list(groups(table, "model", "checkpoint"))
    with Progress(len(checkpoints), "permuting", "checkpoint") as progress:
        for model, checkpoint, own in checkpoints:
            measured = catalog.search(model=model, checkpoint=checkpoint)
            found = rivals(measured, list(own["dataset"].unique()), whole, k, variant)
            who = {"model": model, "checkpoint": checkpoint}
            means = mean_damage(own)
            beside.append(beside_rivals(means, found, k, variant).assign(**who))
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
    pairs = pd.concat(beside, ignore_index=True)
    pairs = pairs[[*_OF, *(name for name in pairs if name not in _OF)]]
    files = {"damage_statistics": out, "damage_pairs": out.with_name("damage_pairs.parquet")}
    contents = {"damage_statistics": result, "damage_pairs": pairs.assign(k=k, variant=variant)}
    for name, content in contents.items():
        with replacing(files[name]) as fresh:
            content.to_parquet(fresh, index=False, write_page_checksum=True)
    return files


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
    means: pd.DataFrame, found: Mapping[Rival, np.ndarray], permutations: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Correlate damage with every rival, by treatment and outcome.

    Args:
        means: as `mean_damage` returns them.
        found: as `rivals` returns them.
        permutations: of blocks.
        seed: of the permutations.

    Yields:
        treatment, blocks, outcome, predictor, k, variant, given (the names of what is held fixed),
        rho, p, entries, permutations, exact.
    """
    size = len(found[Rival("distance")])
    for treatment, blocks, own in groups(means, "treatment", "blocks"):
        shaped = {rival: _shaped(x, treatment, blocks, size) for rival, x in found.items()}
        if blocks == ONE:
            shaped[Rival("depth")] = np.arange(1.0, size + 1)
            del shaped[Rival("distance")]
            shaped.pop(Rival("cosine_distance"), None)
        for outcome in OUTCOMES:
            y = np.full((size, size), np.nan)
            y[own["block"] - 1, own["block_other"] - 1] = own[outcome]
            y = np.diagonal(y) if blocks == ONE else y
            if not np.isfinite(y).any():
                continue
            for given in _GIVEN[blocks]:
                held = [shaped[Rival(name)] for name in given if Rival(name) in shaped]
                if len(held) < len(given):
                    continue
                for rival, x in shaped.items():
                    if rival.name not in given:
                        related = mantel(y, x, held, permutations=permutations, seed=seed)
                        yield {
                            "treatment": treatment,
                            "blocks": blocks,
                            "outcome": outcome,
                            "predictor": rival.name,
                            "k": rival.k,
                            "variant": rival.variant,
                            "given": ", ".join(given),
                            **related._asdict(),
                        }


def groups(table: pd.DataFrame, one: str, two: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Rows that have two columns in common, in the order in which they come."""
    for (first, second), own in table.groupby([one, two], sort=False):
        yield str(first), str(second), own


def _shaped(values: np.ndarray, treatment: Any, blocks: Any, size: int) -> np.ndarray:
    if blocks == ONE:
        return of_one(values)
    places = "second" if TREATMENTS[treatment].ordered else "both"
    return at_places(values, places, size)


def beside_rivals(
    means: pd.DataFrame, found: Mapping[Rival, np.ndarray], k: int, variant: str
) -> pd.DataFrame:
    """The damage of every change with the rivals' values beside it."""
    parts = []
    size = len(found[Rival("distance")])
    for treatment, blocks, own in groups(means, "treatment", "blocks"):
        part = own.copy()
        i, j = own["block"].to_numpy() - 1, own["block_other"].to_numpy() - 1
        for rival, values in found.items():
            if rival.name == "miscoupling" and (rival.k, rival.variant) != (k, variant):
                continue
            shaped = _shaped(values, treatment, blocks, size)
            part[rival.name] = shaped[i] if blocks == ONE else shaped[i, j]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
