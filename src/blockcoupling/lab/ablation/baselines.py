"""Baseline predictors of ablation damage: a matrix over blocks for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.reduce.chance import excess
from blockcoupling.reduce.cosine import block_influence, state_cosines
from blockcoupling.reduce.overlap import overlap
from blockcoupling.reduce.width import dimension

if TYPE_CHECKING:
    from jaxtyping import Float

    from blockcoupling.catalog import Catalog

OF_BLOCKS = ("block_influence", "jacobian_norm", "s1")
"""Baselines that are numbers of one block."""


class Baseline(NamedTuple):
    """Name of a predictor of damage; `k` and `variant` where it depends on them."""

    name: str
    k: int | None = None
    variant: str | None = None


def baselines(
    catalog: Catalog,
    datasets: Sequence[str],
    ks: Sequence[int],
    k: int,
    variant: str,
) -> dict[Baseline, Float[np.ndarray, block * block_other]]:
    """Read all predictors of damage of one checkpoint.

    Args:
        catalog: entries of one model and checkpoint.
        datasets: means are over the prompts of each, and then over these.
        ks: K of the mis-coupling in the variant `variant`; all variants at K = `k`.
        k: of the other predictors.
        variant: of the excess.

    Returns:
        (L, L) with block i along rows for measures of two blocks, (L) for `OF_BLOCKS`; only those
        that were measured.
    """
    parts = [_of_dataset(catalog.search(dataset=each), ks, k, variant) for each in datasets]
    shared = [each for each in parts[0] if all(each in part for part in parts)]
    return {each: np.mean([part[each] for part in parts], axis=0) for each in shared}


def _of_dataset(
    catalog: Catalog, ks: Sequence[int], k: int, variant: str
) -> dict[Baseline, np.ndarray]:
    m = catalog.one(kind="miscoupling").read()["miscoupling_mean"]
    wanted = [Baseline("miscoupling", each, variant) for each in ks]
    wanted += [Baseline("miscoupling", k, str(each)) for each in m["variant"].values]
    found: dict[Baseline, np.ndarray] = {
        each: m.sel(K=each.k, variant=each.variant).transpose("block", "block_other").values
        for each in wanted
        if each.k in m["K"].values and each.variant in m["variant"].values
    }
    blocks = m.sizes["block"]
    place = np.arange(blocks, dtype=float)
    found[Baseline("distance")] = np.abs(np.subtract.outer(place, place))
    spectra = catalog.search(kind="spectra").frame(columns=["block", "jacobian_norm", "s1"])
    means = spectra.groupby("block").mean().sort_index()
    for name in ("jacobian_norm", "s1"):
        found[Baseline(name)] = means[name].to_numpy(float)
    if len(catalog.search(kind="svd")):
        found |= _of_store(catalog.one(kind="svd").read(), k, variant)
    return found


def _of_store(ds: xr.Dataset, k: int, variant: str) -> dict[Baseline, np.ndarray]:
    influence = block_influence(ds).mean(("prompt", "token"))
    found: dict[Baseline, np.ndarray] = {Baseline("block_influence"): influence.values}
    means = state_cosines(ds).mean(("prompt", "token"))
    cosine = means.transpose("state", "state_other").values
    number = np.arange(len(cosine) - 1)
    first, last = np.minimum.outer(number, number), np.maximum.outer(number, number)
    # From the input of the first of two blocks to the output of the second.
    found[Baseline("cosine_distance")] = 1 - cosine[first, last + 1]
    if dimension(ds) is not None and k <= ds.sizes["k"]:
        found[Baseline("excess", k, variant)] = _matrix(excess(ds, k, variant))
    for name in OVERLAPS:
        if name in ds and k <= ds.sizes["k"]:
            found[Baseline(name, k)] = _matrix(overlap(ds, k, name))
    return found


def _matrix(values: xr.DataArray) -> np.ndarray:
    return values.mean(("prompt", "pair")).transpose("block", "block_other").values


def at_places(
    values: np.ndarray, treatment_places: str, blocks: int
) -> Float[np.ndarray, "block block_other"]:
    """Return a baseline as a matrix over pairs (i, j).

    Args:
        values: (L, L), or (L) of single blocks.
        treatment_places: `both`: i and j change, and (i, j) equals (j, i), so that matrices are
            symmetrized and numbers of single blocks averaged. `first`, `second`: only place i, or
            only place j, changes.
        blocks: L.
    """
    if values.ndim == 2:
        if treatment_places != "both":
            return values
        # Composition is defined for j < i only: the mean is over the entries that exist.
        both = np.stack([values, values.T])
        count = np.isfinite(both).sum(0)
        return np.where(count > 0, np.nansum(both, 0) / np.maximum(count, 1), np.nan)
    if treatment_places != "both":
        own = values[:, None] if treatment_places == "first" else values
        return np.broadcast_to(own, (blocks, blocks))
    return (values[:, None] + values) / 2


def of_one(values: np.ndarray) -> Float[np.ndarray, " block"]:
    """Return a baseline as a number of one block: its mean over all pairs with that block."""
    if values.ndim == 1:
        return values
    values = values.copy()
    np.fill_diagonal(values, np.nan)
    return np.nanmean(np.concatenate([values, values.T], axis=1), axis=1)
