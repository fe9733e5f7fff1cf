"""Mis-coupling of blocks, from the stored products A[i, j] = U_jᵀ J_i V_j.

Definitions, and which of them is whose: docs/definitions.md. The top-K block of a stored A is the A
of K, so that all numbers of vectors and all variants come out of one pass over it.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Shaped

from blockcoupling.config.choices import PARTS
from blockcoupling.config.variants import DEFAULT_VARIANT, PRODUCTS, VARIANTS, products
from blockcoupling.errors import UserError
from blockcoupling.reduce.lazily import apply


def miscoupling(ds: xr.Dataset, k: int, variant: str = DEFAULT_VARIANT) -> xr.DataArray:
    """Return the mis-coupling m(i, j) of every pair of blocks; 0 where they are fully coupled.

    `frobenius`: m(i, j) = ‖A_ij − S_i‖_F / ‖S_i‖_F with the top k singular vectors of block j
    (project page of arXiv 2407.07810, and its v5). The others: docs/definitions.md.

    Args:
        ds: dataset of the schema, in memory or lazy; lazy stays lazy.
        k: how many singular vectors, at most those stored.
        variant: one of `VARIANTS`.

    Returns:
        float64, dimensionless, (prompt, pair, block, block_other): i = block, j = block_other.
        NaN where a shorter prompt is padded, and where i or j is a block whose Jacobian is 0.

    Raises:
        UserError: the dataset lacks this k or variant.

    Example:
        >>> m = bc.miscoupling(ds, k=5)
        >>> m.dims
        ('prompt', 'pair', 'block', 'block_other')
        >>> bool((m.sel(block=1, block_other=1) < 1e-4).all())  # a block with itself
        True
    """
    return miscouplings(ds, [k], [variant]).isel(K=0, variant=0)


def miscouplings(ds: xr.Dataset, k: Sequence[int], variants: Sequence[str]) -> xr.DataArray:
    """Return `miscoupling` for several k and variants, reading the stored products once.

    Returns:
        (prompt, pair, variant, K, block, block_other), the order of `k` and `variants` kept.

    Raises:
        UserError: the dataset lacks a k or variant.
    """
    check(ds, k, variants)
    largest = max(k)
    by_product = [
        apply(
            miscoupling_kernel,
            ds[product].isel(k=slice(largest), k_other=slice(largest)),
            ds[VARIANTS[names[0]].of_part("S")].isel(k=slice(largest)),
            core=[["block", "block_other", "k", "k_other"], ["block", "k"]],
            out=[["variant", "K", "block", "block_other"]],
            sizes={"variant": len(names), "K": len(k)},
            k=list(k),
            variants=names,
        ).assign_coords(variant=np.array(names, dtype=object), K=list(k))
        for product in PRODUCTS
        if (names := [name for name in variants if VARIANTS[name].product == product])
    ]
    joined = by_product[0] if len(by_product) == 1 else xr.concat(by_product, "variant")
    return joined.sel(variant=list(variants)).rename("miscoupling")


def coupling(ds: xr.Dataset, k: int, variant: str = DEFAULT_VARIANT) -> xr.DataArray:
    """Return the coupling of each prompt and pair: minus the mean of m(i, j) over i ≠ j.

    The mean is that over the pairs of blocks whose Jacobians are not 0 (`pairs_of_blocks`).

    Args, errors: see `miscoupling`.

    Returns:
        float64, dimensionless, at most 0, (prompt, pair). NaN where no pair is left.

    Example:
        >>> coupling = bc.coupling(ds, k=5)
        >>> coupling.dims
        ('prompt', 'pair')
        >>> -1.5 < float(coupling.mean()) < -0.5  # a random model: about -1
        True
    """
    return -mean_between_blocks(miscoupling(ds, k, variant)).rename("coupling")


def mean_between_blocks(m: xr.DataArray, *, earlier: bool = False) -> xr.DataArray:
    """Return the mean of m over all ordered pairs of different blocks that are defined.

    With `earlier`, over those of a block i and an earlier one, j < i, alone.

    A block whose Jacobian is 0 is one whose row and column are all NaN; any other NaN is passed on.
    """
    return _over_blocks(partial(_mean_between_blocks, earlier=earlier), m, [])


def mean_by_distance(m: xr.DataArray) -> xr.DataArray:
    """Return the mean of m over |i − j| = distance, for every distance 1 … L − 1 (locality).

    Over the pairs that are defined, as in `mean_between_blocks`; NaN where none is.
    """
    distances = np.arange(1, m.sizes["block"])
    return _over_blocks(_mean_by_distance, m, ["distance"], distance=len(distances)).assign_coords(
        distance=distances
    )


def idle_blocks(s: xr.DataArray) -> xr.DataArray:
    """Return which Jacobians are exactly 0, from singular values along `k`; NaN is not."""
    return (s.isel(k=0, drop=True) == 0).rename("idle")


def pairs_of_blocks(s: xr.DataArray) -> xr.DataArray:
    """Return how many ordered pairs of different blocks have a mis-coupling, from values along `k`.

    L (L − 1), unless a Jacobian is 0.
    """
    present = (~idle_blocks(s)).sum("block")
    return (present * (present - 1)).rename("pairs")


def miscoupling_kernel(
    a: Shaped[np.ndarray, "*any i j k k"],
    s: Shaped[np.ndarray, "*any i k"],
    k: Sequence[int],
    variants: Sequence[str],
) -> Float[np.ndarray, "*any variant K i j"]:
    """Return m(i, j) for all `k` and `variants`, in float64, from A_ij and s_i of the largest k.

    ‖A − S‖² of the top-k block is a sum over its off-diagonal entries, the same in every variant
    (that of all k at once is a product with a 0/1 matrix), plus one over its diagonal.

    A Jacobian that is 0 has no singular vectors, nor a size that a deviation is relative to: NaN
    for all its pairs.
    """
    idle = s[..., 0] == 0
    idle = (idle[..., :, None] | idle[..., None, :])[..., None]  # (…, i, j, K)
    s = s.astype(np.float64)[..., :, None, :]
    largest = a.shape[-1]
    row, column = np.indices((largest, largest)).reshape(2, -1, 1)
    inside = (np.maximum(row, column) < np.asarray(k)) & (row != column)
    off_diagonal = _sums_of_squares(a, inside.astype(np.float64))

    diagonal = np.diagonal(a, axis1=-2, axis2=-1).astype(np.float64)
    chosen = np.asarray(k) - 1
    result = []
    for variant in (VARIANTS[name] for name in variants):
        on_diagonal = np.cumsum(variant.diagonal(diagonal, s) ** 2, axis=-1)[..., chosen]
        scale = np.where(idle, np.nan, variant.scale(s)[..., chosen])
        result.append(np.sqrt(off_diagonal + on_diagonal) / scale)
    return np.moveaxis(np.stack(result, axis=-1), (-1, -2), (-4, -3))


def _sums_of_squares(
    a: Shaped[np.ndarray, "*any i j k k"], chosen: Float[np.ndarray, "k*k K"]
) -> Float[np.ndarray, "*any i j K"]:
    """Return the sums of the squares of the chosen entries, in float64.

    The pairs of one block at a time: their squares stay in the processor's cache, where all of them
    are several times its size, written to memory and read again.
    """
    rows = a.reshape(-1, a.shape[-3], len(chosen))
    sums = np.empty((*rows.shape[:-1], chosen.shape[-1]))
    squares = np.empty(rows.shape[1:])
    for row, total in zip(rows, sums, strict=True):
        np.square(row, out=squares, dtype=np.float64)
        np.matmul(squares, chosen, out=total)
    return sums.reshape(*a.shape[:-2], -1)


def check(ds: xr.Dataset, k: Sequence[int], variants: Sequence[str]) -> None:
    """Check that mis-coupling for these k and variants can be had from a dataset.

    Raises:
        UserError: naming what cannot.
    """
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise UserError(f"unknown variant {unknown[0]!r}: choose from {', '.join(VARIANTS)}")
    if missing := sorted({"S", *products(variants)} - set(ds)):
        part = next((part for part in PARTS if missing[0] == f"A_{part}"), None)
        if part is not None:
            how = "detached=True" if part == "detached" else f"parts=['block', '{part}']"
            raise UserError(
                f"the variant `{part}` needs Jacobians that this store does not hold: measure "
                f"again with {how}, or leave the variant out"
            )
        lacking = next((name for name in variants if VARIANTS[name].product == missing[0]), None)
        if missing[0] in ("A", "S"):
            raise UserError(f"the dataset has no variable {missing[0]}, which mis-coupling needs")
        raise UserError(
            f"the variant `{lacking}` needs the products {PRODUCTS[missing[0]]}, which this store "
            f"does not hold: extract again with them (variable `{missing[0]}`), or leave the "
            "variant out"
        )
    check_corner(ds, k)


def check_corner(ds: xr.Dataset, k: Sequence[int]) -> None:
    """Check that a dataset has k singular vectors, and the same blocks i and j.

    Raises:
        UserError: naming what it does not.
    """
    stored = ds.sizes["k"]
    if wrong := [each for each in k if not 1 <= each <= stored]:
        raise UserError(
            f"K = {wrong[0]}, but the store holds {stored} singular vectors a block: choose K "
            f"from 1 to {stored}, or extract again with a larger k"
        )
    if not np.array_equal(ds["block"], ds["block_other"]):
        raise UserError("select the same blocks along `block` and `block_other`")


def _over_blocks(
    kernel: Callable[[np.ndarray], np.ndarray], m: xr.DataArray, out: list[str], **sizes: int
) -> xr.DataArray:
    return apply(kernel, m, core=[["block", "block_other"]], out=[out], sizes=sizes)


def _mean_between_blocks(
    m: Float[np.ndarray, "*any L L"], earlier: bool
) -> Float[np.ndarray, "*any"]:
    row, column = np.indices(m.shape[-2:])
    chosen = column < row if earlier else column != row
    return _mean(m[..., chosen], _defined(m)[..., chosen])


def _mean_by_distance(m: Float[np.ndarray, "*any L L"]) -> Float[np.ndarray, "*any L-1"]:
    row, column = np.indices(m.shape[-2:])
    distance = np.abs(row - column)
    defined = _defined(m)
    means = [
        _mean(m[..., distance == each], defined[..., distance == each])
        for each in range(1, m.shape[-1])
    ]
    return np.stack(means, axis=-1)


def _defined(m: Float[np.ndarray, "*any L L"]) -> Bool[np.ndarray, "*any L L"]:
    """Return which pairs are of two blocks whose row and column are not all NaN."""
    missing = np.isnan(m)
    present = ~(missing.all(axis=-1) & missing.all(axis=-2))
    return present[..., :, None] & present[..., None, :]


def _mean(
    values: Float[np.ndarray, "*any pair"], defined: Bool[np.ndarray, "*any pair"]
) -> Float[np.ndarray, "*any"]:
    with np.errstate(invalid="ignore"):  # of none: NaN
        return np.where(defined, values, 0).sum(axis=-1) / defined.sum(axis=-1)
