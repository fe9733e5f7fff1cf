"""What the singular values of the Jacobians look like: how many matter, how they change with depth.

Definitions: docs/definitions.md.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from scipy.special import entr

from blockcoupling.reduce.lazily import apply


def participation_ratio(s: xr.DataArray) -> xr.DataArray:
    """Return (Σs)² / Σs², between 1 (one singular value) and their number (all equal).

    Args:
        s: singular values along `k` (kept ones, `S`) or `k_full` (all of them, `S_full`).

    Returns:
        float64, s without that axis; NaN where it is padded, and where all values are 0.
    """
    return _over_values(participation_ratio_kernel, s).rename("participation_ratio")


def effective_rank(s: xr.DataArray) -> xr.DataArray:
    """Return exp(−Σ p ln p) with p = s/Σs, between 1 and the number of values.

    Roy & Vetterli (2007).

    Args:
        s: singular values along `k` (kept ones, `S`) or `k_full` (all of them, `S_full`).

    Returns:
        float64, s without that axis; NaN where it is padded, and where all values are 0.
    """
    return _over_values(effective_rank_kernel, s).rename("effective_rank")


def inverse_depth_fit(s: xr.DataArray) -> xr.Dataset:
    """Fit 1/s_k = intercept + slope · l over the blocks l = 1 … L, for every k.

    Residual Alignment (Li & Papyan, 2023) found 1/s_k linear in depth in ResNets.

    Args:
        s: singular values along `block` and `k`.

    Returns:
        `slope` (per block), `intercept` and `r2` (coefficient of determination), without `block`.
        NaN where a value is zero or padded; r2 also where 1/s_k does not change with depth, and
        with fewer than three blocks, through which a line always goes.
    """
    slope, intercept, r2 = apply(
        inverse_depth_fit_kernel, s, s["block"], core=[["block"], ["block"]], out=[[], [], []]
    )
    return xr.Dataset({"slope": slope, "intercept": intercept, "r2": r2})


def participation_ratio_kernel(s: Shaped[np.ndarray, "*any k"]) -> Float[np.ndarray, "*any"]:
    """Return (Σs)² / Σs² in float64."""
    s = s.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of a Jacobian that is 0: NaN
        return s.sum(axis=-1) ** 2 / np.square(s).sum(axis=-1)


def effective_rank_kernel(s: Shaped[np.ndarray, "*any k"]) -> Float[np.ndarray, "*any"]:
    """Return exp(−Σ p ln p) in float64."""
    s = s.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of a Jacobian that is 0: NaN
        return np.exp(entr(s / s.sum(axis=-1, keepdims=True)).sum(axis=-1))


def inverse_depth_fit_kernel(
    s: Shaped[np.ndarray, "*any L"], depth: Shaped[np.ndarray, "L"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return slope, intercept and R² of the least-squares line through (depth, 1/s)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        inverse = 1 / s.astype(np.float64)
        inverse = np.where(np.isfinite(inverse), inverse, np.nan)
        x = depth - depth.mean()
        y = inverse - inverse.mean(axis=-1, keepdims=True)
        slope = (x * y).sum(axis=-1) / np.square(x).sum()
        left = np.square(y - slope[..., None] * x).sum(axis=-1)
        r2 = 1 - left / np.square(y).sum(axis=-1)
    meaningless = (np.ptp(inverse, axis=-1) == 0) | (len(depth) < 3)
    r2 = np.where(meaningless, np.nan, r2)
    return slope, inverse.mean(axis=-1) - slope * depth.mean(), r2


def _over_values(kernel: Callable[[np.ndarray], np.ndarray], s: xr.DataArray) -> xr.DataArray:
    return apply(kernel, s, core=[["k_full" if "k_full" in s.dims else "k"]])
