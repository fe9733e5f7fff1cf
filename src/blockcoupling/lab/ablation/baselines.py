"""What may tell which blocks can be left out or exchanged: a matrix over blocks for each rival."""

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
"""Rivals that are numbers of one block."""


class Rival(NamedTuple):
    """What is held against damage; `k` and `variant` where it is of one."""

    name: str
    k: int | None = None
    variant: str | None = None


def rivals(
    catalog: Catalog,
    datasets: Sequence[str],
    ks: Sequence[int],
    k: int,
    variant: str,
) -> dict[Rival, Float[np.ndarray, block * block_other]]:
    """Read everything that damage is held against, of one checkpoint.

    Args:
        catalog: entries of one model and checkpoint.
        datasets: means are over the prompts of each, and then over these.
        ks: which K of the mis-coupling, in the variant `variant`; all variants at K = `k`.
        k: of the others that are of one K.
        variant: of the excess.

    Returns:
        (L, L) with block i along rows for what belongs to two blocks, (L) for `OF_BLOCKS`; what
        was not measured is not among them.
    """
    parts = [_of_dataset(catalog.search(dataset=each), ks, k, variant) for each in datasets]
    shared = [rival for rival in parts[0] if all(rival in part for part in parts)]
    return {rival: np.mean([part[rival] for part in parts], axis=0) for rival in shared}


def _of_dataset(
    catalog: Catalog, ks: Sequence[int], k: int, variant: str
) -> dict[Rival, np.ndarray]:
    m = catalog.one(kind="miscoupling").read()["miscoupling_mean"]
    wanted = [Rival("miscoupling", each, variant) for each in ks]
    wanted += [Rival("miscoupling", k, str(each)) for each in m["variant"].values]
    found: dict[Rival, np.ndarray] = {
        rival: m.sel(K=rival.k, variant=rival.variant).transpose("block", "block_other").values
        for rival in wanted
        if rival.k in m["K"].values and rival.variant in m["variant"].values
    }
    blocks = m.sizes["block"]
    place = np.arange(blocks, dtype=float)
    found[Rival("distance")] = np.abs(np.subtract.outer(place, place))
    spectra = catalog.search(kind="spectra").frame(columns=["block", "jacobian_norm", "s1"])
    means = spectra.groupby("block").mean().sort_index()
    for name in ("jacobian_norm", "s1"):
        found[Rival(name)] = means[name].to_numpy(float)
    if len(catalog.search(kind="svd")):
        found |= _of_store(catalog.one(kind="svd").read(), k, variant)
    return found


def _of_store(ds: xr.Dataset, k: int, variant: str) -> dict[Rival, np.ndarray]:
    influence = block_influence(ds).mean(("prompt", "token"))
    found: dict[Rival, np.ndarray] = {Rival("block_influence"): influence.values}
    means = state_cosines(ds).mean(("prompt", "token"))
    cosine = means.transpose("state", "state_other").values
    number = np.arange(len(cosine) - 1)
    first, last = np.minimum.outer(number, number), np.maximum.outer(number, number)
    # From what enters the first of two blocks to what leaves the second.
    found[Rival("cosine_distance")] = 1 - cosine[first, last + 1]
    if dimension(ds) is not None and k <= ds.sizes["k"]:
        found[Rival("excess", k, variant)] = _matrix(excess(ds, k, variant))
    for name in OVERLAPS:
        if name in ds and k <= ds.sizes["k"]:
            found[Rival(name, k)] = _matrix(overlap(ds, k, name))
    return found


def _matrix(values: xr.DataArray) -> np.ndarray:
    return values.mean(("prompt", "pair")).transpose("block", "block_other").values


def at_places(
    rival: np.ndarray, treatment_places: str, blocks: int
) -> Float[np.ndarray, "block block_other"]:
    """A rival as a matrix over pairs (i, j).

    Args:
        rival: (L, L), or (L) of single blocks.
        treatment_places: `both`: i and j change, and (i, j) is as (j, i); a matrix is made
            symmetric, of single blocks the mean of two is taken. `second`: only place j changes.
        blocks: L.
    """
    if rival.ndim == 2:
        if treatment_places == "second":
            return rival
        # Composition is of (i, j) with j < i alone: what is there is taken.
        both = np.stack([rival, rival.T])
        count = np.isfinite(both).sum(0)
        return np.where(count > 0, np.nansum(both, 0) / np.maximum(count, 1), np.nan)
    if treatment_places == "second":
        return np.broadcast_to(rival, (blocks, blocks))
    return (rival[:, None] + rival) / 2


def of_one(rival: np.ndarray) -> Float[np.ndarray, " block"]:
    """A rival as a number of one block: its mean over all pairs that the block is in."""
    if rival.ndim == 1:
        return rival
    values = rival.copy()
    np.fill_diagonal(values, np.nan)
    return np.nanmean(np.concatenate([values, values.T], axis=1), axis=1)
