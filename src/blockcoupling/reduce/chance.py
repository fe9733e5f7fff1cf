"""What mis-coupling is by chance: with singular vectors of block j that know nothing of block i.

For U_j and V_j drawn at random (Haar, independent of J_i), an entry a of A_ij has mean 0 and mean
square ‖J_i‖_F² / d². So m by chance depends on K and d: models of different width are not on one
scale until this is taken into account. Formulas: docs/definitions.md.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from scipy.special import gammaln

from blockcoupling.config.variants import DEFAULT_VARIANT, VARIANTS
from blockcoupling.errors import UserError
from blockcoupling.reduce.coupling import check, miscoupling, miscoupling_kernel
from blockcoupling.reduce.lazily import apply
from blockcoupling.reduce.width import demand_dimension

# The integral for E‖J g‖, on a logarithmic scale: what is left out is below 1e-10 of it.
_LOGARITHMS = np.arange(-50, 50, 0.25)


def chance(ds: xr.Dataset, k: int = 10, variant: str = DEFAULT_VARIANT) -> xr.DataArray:
    """Return the mis-coupling of block i with a block whose singular vectors are random.

    The root of the mean of m² over random frames; for `frobenius`,
    m_chance(i)² = 1 + K² ‖J_i‖_F² / (d² ‖S_i‖_F²).

    Args:
        ds: dataset of the schema, in memory or lazy; lazy stays lazy.
        k: how many singular vectors, at most those stored.
        variant: one of `VARIANTS`. Those that take absolute values need all singular values: of
            those that are not stored (`S_full`), what ‖J‖_F says is used, spread evenly.

    Returns:
        float64, dimensionless, (prompt, pair, block). NaN where J is 0 or padding.

    Raises:
        UserError: k or variant are not available in this dataset, or its width d is unknown.

    Example:
        >>> above = bc.miscoupling(ds, k=5) / bc.chance(ds, k=5)  # 1: as random singular vectors
        >>> above.dims
        ('prompt', 'pair', 'block', 'block_other')
    """
    return chances(ds, [k], [variant]).isel(K=0, variant=0)


def chances(ds: xr.Dataset, k: Sequence[int], variants: Sequence[str]) -> xr.DataArray:
    """Return `chance` for several k and variants: (prompt, pair, variant, K, block)."""
    check(ds, k, variants)
    d = demand_dimension(ds)
    by_part = []
    for part in dict.fromkeys(VARIANTS[name].part for name in variants):
        names = [name for name in variants if VARIANTS[name].part == part]
        of_part = VARIANTS[names[0]].of_part
        full = [ds["S_full"]] if "S_full" in ds and part is None else []
        found = apply(
            chance_kernel,
            ds[of_part("S")],
            ds[of_part("jacobian_norm")],
            *full,
            core=[["block", "k"], ["block"], *([["block", "k_full"]] * len(full))],
            out=[["variant", "K", "block"]],
            sizes={"variant": len(names), "K": len(k)},
            k=list(k),
            variants=names,
            d=d,
        )
        by_part.append(found.assign_coords(variant=np.array(names, dtype=object), K=list(k)))
    joined = by_part[0] if len(by_part) == 1 else xr.concat(by_part, "variant")
    return joined.sel(variant=list(variants))


def excess(ds: xr.Dataset, k: int = 10, variant: str = DEFAULT_VARIANT) -> xr.DataArray:
    """Return 1 − m(i, j) / m_chance(i): 0 by chance, 1 where blocks are fully coupled.

    Args, errors: see `chance`.

    Returns:
        float64, dimensionless, at most 1, (prompt, pair, block, block_other). NaN where m is.

    Example:
        >>> excess = bc.excess(ds, k=5)
        >>> float(excess.sel(block=1, block_other=1).min().round(3))  # a block with itself
        1.0
    """
    m = miscoupling(ds, k, variant)
    return above_chance(m, chance(ds, k, variant)).transpose(*m.dims).rename("excess")


def above_chance(m: xr.DataArray, by_chance: xr.DataArray) -> xr.DataArray:
    """Return 1 − m / m_chance; NaN where chance is 0 (`offdiagonal` with K = 1)."""
    return 1 - m / by_chance.where(by_chance > 0)


def chance_by_draws(
    ds: xr.Dataset, k: int = 10, variant: str = DEFAULT_VARIANT, *, draws: int = 100, seed: int = 0
) -> xr.Dataset:
    """Draw the mis-coupling of each block with random frames, as `chance` has it by formula.

    A = U_jᵀ J_i V_j with Haar frames depends on the singular values of J_i alone, so that no
    Jacobian is needed; those that are not stored are taken as in `chance`.

    Args:
        ds: dataset of the schema.
        k: how many singular vectors, at most those stored.
        variant: one of `VARIANTS`.
        draws: how many frames; the same ones for all blocks.
        seed: of the frames.

    Returns:
        `mean` of m, `rms` (what `chance` is), and `low` and `high`, its 2.5 % and 97.5 % quantiles:
        (prompt, pair, block), float64.

    Raises:
        UserError: as `chance`, or fewer than two draws.

    Example:
        >>> drawn = bc.chance_by_draws(ds, k=5, draws=400)
        >>> bool((abs(drawn["rms"] / bc.chance(ds, k=5) - 1) < 0.05).all())
        True
    """
    check(ds, [k], [variant])
    if draws < 2:
        raise UserError(f"draws = {draws}: quantiles need at least 2, and 50 to mean much")
    d = demand_dimension(ds)
    of_part = VARIANTS[variant].of_part
    kept = ds[of_part("S")].values.astype(np.float64)
    if "S_full" in ds and VARIANTS[variant].part is None:
        values = ds["S_full"].values
    else:
        values = _all(kept, ds[of_part("jacobian_norm")].values, d)
    m = drawn_miscoupling(values.astype(np.float64), k, variant, draws, seed)
    return over_draws(m, ds, ("prompt", "pair", "block"))


def over_draws(
    m: Float[np.ndarray, "draw *any"], ds: xr.Dataset, axes: Sequence[str]
) -> xr.Dataset:
    """Return `mean`, `rms`, and `low` and `high`, the 2.5 % and 97.5 % quantiles, over draws."""
    low, high = np.quantile(m, [0.025, 0.975], axis=0)
    found = {"mean": m.mean(axis=0), "rms": np.sqrt(np.square(m).mean(axis=0))}
    found |= {"low": low, "high": high}
    coords = {name: ds[name] for name in ("prompt", "pair", "block", "token_in", "token_out")}
    return xr.Dataset({name: (axes, each) for name, each in found.items()}, coords)


def drawn_miscoupling(
    values: Float[np.ndarray, "*any d"], k: int, variant: str, draws: int, seed: int
) -> Float[np.ndarray, "draw *any"]:
    """Return m of Jacobians with these singular values and random frames, drawn `draws` times.

    Args:
        values: all singular values, descending.
        k: how many vectors a frame has.
        variant: one of `VARIANTS`.
        draws: how many pairs of frames.
        seed: of the frames.
    """
    random = np.random.default_rng(seed)
    d = values.shape[-1]
    s = values[..., None, :k]  # one block i …
    m = np.empty((draws, *values.shape[:-1]))
    for draw in range(draws):
        u, v = (haar_frame(random, d, k) for _ in range(2))
        a = np.einsum("ak,...a,al->...kl", u, values, v, optimize=True)
        m[draw] = miscoupling_kernel(a[..., None, None, :, :], s, [k], [variant])[..., 0, 0, 0, 0]
    return m


def chance_kernel(
    s: Shaped[np.ndarray, "*any block kept"],
    norm: Float[np.ndarray, "*any block"],
    full: Shaped[np.ndarray, "*any block d"] | None = None,
    *,
    k: Sequence[int],
    variants: Sequence[str],
    d: int,
) -> Float[np.ndarray, "*any variant K block"]:
    """Return the root mean square of m over random frames.

    The K (K − 1) entries off the diagonal have the mean square ‖J‖² / d²; what those on the
    diagonal contribute is the variant's (`Variant.chance`).
    """
    s = s.astype(np.float64)
    s = np.where(s[..., :1] == 0, np.nan, s)  # no Jacobian, no chance
    square = np.square(norm / d)
    every = _all(s, norm, d) if full is None else full.astype(np.float64)
    absolute = mean_absolute_entry(every)
    chosen = np.asarray(k) - 1
    off_diagonal = (chosen * (chosen + 1)) * square[..., None]
    result = []
    with np.errstate(invalid="ignore"):
        for variant in (VARIANTS[name] for name in variants):
            own = variant.chance(square[..., None], absolute[..., None], s)
            mean = off_diagonal + own.cumsum(axis=-1)[..., chosen]
            result.append(np.sqrt(mean) / variant.scale(s)[..., chosen])
    return np.moveaxis(np.stack(result, axis=-1), (-1, -2), (-3, -2))


def mean_absolute_entry(values: Float[np.ndarray, "*any d"]) -> Float[np.ndarray, "*any"]:
    """Return E|uᵀ J v| for independent random unit vectors u and v.

    Given v it is ‖J v‖ E|u_1|, and with g Gaussian ‖J g‖ = ‖g‖ ‖J v‖, so that it is
    √(2/π) E‖J g‖ / (E‖g‖)². E√q of q = Σ σ² g² is an integral of its Laplace transform,
    ∫ (1 − Π (1 + 2 t σ²)^(−1/2)) t^(−3/2) dt / (2 √π).

    Args:
        values: all d singular values of J.
    """
    d = values.shape[-1]
    norm = np.linalg.norm(values, axis=-1)
    with np.errstate(invalid="ignore"):
        squares = np.square(values / norm[..., None])
    integral = np.zeros(norm.shape)
    for y in _LOGARITHMS:
        t = np.exp(y)
        integral += -np.expm1(-0.5 * np.log1p(2 * t * squares).sum(axis=-1)) / np.sqrt(t)
    mean_length = norm * integral * (_LOGARITHMS[1] - _LOGARITHMS[0]) / (2 * np.sqrt(np.pi))
    gaussian = np.sqrt(2) * np.exp(gammaln((d + 1) / 2) - gammaln(d / 2))  # E‖g‖
    return np.sqrt(2 / np.pi) * mean_length / gaussian**2


def _all(
    s: Float[np.ndarray, "*any kept"], norm: Float[np.ndarray, "*any"], d: int
) -> Float[np.ndarray, "*any d"]:
    """Return d singular values: those kept, and as many equal ones as ‖J‖_F leaves."""
    missing = d - s.shape[-1]
    rest = np.maximum(np.square(norm) - np.square(s).sum(axis=-1), 0)
    even = np.sqrt(rest / max(missing, 1))[..., None]
    return np.concatenate([s, np.repeat(even, missing, axis=-1)], axis=-1)


def haar_frame(random: np.random.Generator, d: int, k: int) -> Float[np.ndarray, "d k"]:
    """Return k orthonormal vectors, uniform over all of them (Mezzadri 2007)."""
    q, r = np.linalg.qr(random.normal(size=(d, k)))
    return q * np.sign(np.diagonal(r))
