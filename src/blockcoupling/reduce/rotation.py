"""Mis-coupling by chance if each block's singular vectors are rotated together.

`reduce.chance` draws U_j and V_j independently, which a block's own frames are not. Where J_j is
close to symmetric, V_jᵀU_j is close to the identity, and m of two such blocks is far from the
independent draw even if their directions are unrelated. Here one rotation Q turns both: A =
(Q U_j)ᵀ J_i (Q V_j), which keeps V_jᵀU_j and forgets everything else of block j.
"""

import numpy as np
import xarray as xr

from blockcoupling.config.variants import DEFAULT_VARIANT, VARIANTS
from blockcoupling.errors import UserError
from blockcoupling.reduce.chance import haar_frame, over_draws
from blockcoupling.reduce.coupling import check, miscoupling_kernel
from blockcoupling.reduce.width import demand_dimension


def chance_by_rotation(
    ds: xr.Dataset, k: int = 10, variant: str = DEFAULT_VARIANT, *, draws: int = 100, seed: int = 0
) -> xr.Dataset:
    """Draw the mis-coupling of block i with block j after a random rotation of block j.

    J_i is taken from its stored singular triples. What these leave of ‖J_i‖_F acts as independent
    noise, so that results are exact where all triples are stored.

    Args:
        ds: dataset of the schema, with singular vectors.
        k: number of singular vectors, at most those stored.
        variant: one of `VARIANTS`.
        draws: number of rotations, the same ones for all blocks.
        seed: of the rotations.

    Returns:
        `mean` of m, `rms`, and `low` and `high`, its 2.5 % and 97.5 % quantiles: (prompt, pair,
        block, block_other), float64. NaN for i = j.

    Raises:
        UserError: k or variant are not available, the store has no vectors, or fewer than 2 draws.

    Example:
        >>> ds = bc.measure(model, tokenizer, "Two roads", k=5, vectors=True)
        >>> rotated = bc.chance_by_rotation(ds, k=5)
        >>> unusual = bc.miscoupling(ds, k=5) < rotated["low"]  # coupled beyond the spectra
    """
    check(ds, [k], [variant])
    if (part := VARIANTS[variant].part) is not None:
        raise UserError(f"of {part} no singular vectors are kept: choose a variant of the blocks")
    if draws < 2:
        raise UserError(f"draws = {draws}: quantiles need at least 2, and 50 to mean much")
    if "U" not in ds or "V" not in ds:
        raise UserError("the dataset lacks singular vectors (U and V): measure with store.vectors")
    random, d = np.random.default_rng(seed), demand_dimension(ds)
    axes = ("prompt", "pair", "block")
    s = ds["S"].transpose(*axes, "k").values.astype(np.float64)
    u, v = (ds[n].transpose(*axes, "embed", "k").values.astype(np.float64) for n in ("U", "V"))
    norm = ds["jacobian_norm"].transpose(*axes).values
    rest = np.sqrt(np.maximum(np.square(norm) - np.square(s).sum(axis=-1), 0)) / d
    # The 2 K vectors of a block in a basis of their own: only that basis is rotated.
    own = np.concatenate([u[..., :k], v[..., :k]], axis=-1)
    basis, own = np.linalg.qr(own, mode="reduced")
    width = basis.shape[-1]
    left, right = own[..., :k], own[..., k:]
    if VARIANTS[variant].product == "A_swapped":
        left, right = right, left
    m = np.empty((draws, *s.shape[:-1], s.shape[2]))
    for draw in range(draws):
        frame = haar_frame(random, d, width)
        rotated = (frame.T @ u * s[..., None, :]) @ np.swapaxes(frame.T @ v, -1, -2)
        noise = random.normal(size=rotated.shape[-2:]) * rest[..., None, None]
        a = np.einsum("...jak,...iab,...jbl->...ijkl", left, rotated + noise, right, optimize=True)
        m[draw] = miscoupling_kernel(a, s[..., :k], [k], [variant])[..., 0, 0, :, :]
    blocks = s.shape[2]
    m[..., np.arange(blocks), np.arange(blocks)] = np.nan
    drawn = over_draws(m, ds, (*axes, "block_other"))
    return drawn.assign_coords(block_other=ds["block"].values)
