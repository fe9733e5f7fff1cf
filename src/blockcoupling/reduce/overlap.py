"""Overlaps of the subspaces that blocks write into and read from: ‖left_iᵀ right_j‖_F² / K.

0 where the subspaces are orthogonal, 1 where they are the same, K/d by chance. Definitions:
docs/definitions.md. The top-K corner of a stored overlap is the overlap of K.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

from blockcoupling.config.overlaps import CUMULATIVE, OVERLAPS
from blockcoupling.errors import UserError
from blockcoupling.reduce.coupling import check_corner, idle_blocks
from blockcoupling.reduce.lazily import apply
from blockcoupling.reduce.width import demand_dimension


def overlap(ds: xr.Dataset, k: int = 10, kind: str = "output_overlap") -> xr.DataArray:
    """Return how much the top-k subspaces of every two blocks overlap.

    `output_overlap`: ‖U_iᵀ U_j‖_F² / k, the mean squared cosine of the principal angles between
    what blocks i and j write into. Signs, order and rotations within a subspace change nothing.

    Args:
        ds: dataset of the schema, in memory or lazy; lazy stays lazy.
        k: how many singular vectors, at most those stored.
        kind: one of `OVERLAPS` or `CUMULATIVE`.

    Returns:
        float64, dimensionless, from 0 to 1, (prompt, pair, block, block_other): i = block,
        j = block_other. NaN where it means nothing (`composition` for j ≥ i), where a shorter
        prompt is padded, and where i or j is a block whose Jacobian is 0.

    Raises:
        UserError: the dataset lacks this k or kind.

    Example:
        >>> ds = bc.measure(model, tokenizer, "Two roads", k=5, overlaps=True)
        >>> shared = bc.overlap(ds, k=5, kind="output_overlap")
        >>> float(shared.sel(block=1, block_other=1).min().round(3))  # a block with itself
        1.0
    """
    known = {**OVERLAPS, **CUMULATIVE}
    if kind not in known:
        raise UserError(f"unknown overlap {kind!r}: choose from {', '.join(known)}")
    if kind not in ds:
        setting = "overlaps" if kind in OVERLAPS else "cumulative"
        raise UserError(
            f"the dataset does not hold {kind}: measure again with {setting}=True (in a study, "
            f"extract.{setting}: true)"
        )
    return with_meaning(overlaps(ds, [k], [kind])[kind], kind).isel(K=0).rename(kind)


def overlaps(
    ds: xr.Dataset, k: Sequence[int], kinds: Iterable[str] = OVERLAPS
) -> dict[str, xr.DataArray]:
    """Return each of the overlaps that a dataset holds, for several k; of all pairs of blocks.

    Returns:
        By name, (prompt, pair, K, block, block_other); those of `composition` for j ≥ i, too.

    Raises:
        UserError: the dataset lacks a k.
    """
    check_corner(ds, k)
    corner = slice(max(k))
    return {
        name: apply(
            overlap_kernel,
            ds[name].isel(k=corner, k_other=corner),
            idle_blocks(ds["S"]),
            core=[["block", "block_other", "k", "k_other"], ["block"]],
            out=[["K", "block", "block_other"]],
            sizes={"K": len(k)},
            k=list(k),
        ).assign_coords(K=list(k))
        for name in kinds
        if name in ds
    }


def with_meaning(values: xr.DataArray, kind: str) -> xr.DataArray:
    """Leave out the pairs of blocks for which an overlap of this kind means nothing."""
    if kind in CUMULATIVE or not OVERLAPS[kind].earlier:
        return values
    return values.where(values["block_other"] < values["block"])


def above_chance(values: xr.DataArray, chance: xr.DataArray) -> xr.DataArray:
    """Return (O − K/d) / (1 − K/d): 0 by chance, 1 for the same subspaces; NaN where K = d."""
    return (values - chance) / (1 - chance).where(chance < 1)


def overlap_by_chance(ds: xr.Dataset, k: Sequence[int]) -> xr.DataArray:
    """Return K/d, the mean over random subspaces (Haar) of any of the overlaps: (K).

    Raises:
        UserError: the dataset does not say how wide the model is.
    """
    return xr.DataArray(np.asarray(k) / demand_dimension(ds), coords={"K": list(k)}, dims="K")


def overlap_kernel(
    o: Shaped[np.ndarray, "*any i j k k"], idle: Shaped[np.ndarray, "*any i"], k: Sequence[int]
) -> Float[np.ndarray, "*any K i j"]:
    """Return ‖O_ij‖_F² / k of the top-k corners for all `k`, in float64.

    A Jacobian that is 0 has no singular vectors: NaN for all its pairs.
    """
    row, column = np.indices(o.shape[-2:]).reshape(2, -1, 1)
    inside = (np.maximum(row, column) < np.asarray(k)).astype(np.float64)
    squares = np.square(o, dtype=np.float64).reshape(*o.shape[:-2], -1)
    found = squares @ inside / np.asarray(k)
    idle = idle.astype(bool)
    undefined = idle[..., :, None] | idle[..., None, :]
    return np.moveaxis(np.where(undefined[..., None], np.nan, found), -1, -3)
