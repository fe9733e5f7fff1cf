"""Regularity of a token's way through the blocks, from its Gram matrix alone.

The Gram matrix holds the inner products of (x^0, δ^1 … δ^L): the input of the first block and the
steps δ^l = x^l − x^{l−1}. Definitions: docs/definitions.md.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float

from blockcoupling.reduce.lazily import apply

Gram = Float[np.ndarray, "*any L+1 L+1"]


def line_shape_score(ds: xr.Dataset) -> xr.DataArray:
    """Return L / ‖Σ_l δ^l/‖δ^l‖‖ of every token: 1 on a straight line, larger elsewhere.

    Gai & Zhang (2021), as used by arXiv 2407.07810.

    Args:
        ds: dataset of the schema, in memory or lazy; lazy stays lazy.

    Returns:
        float64, dimensionless, (prompt, token). Infinite when the directions cancel; NaN where a
        step is exactly zero (it has no direction) and where a shorter prompt is padded.

    Example:
        >>> bool((bc.line_shape_score(ds).dropna("token") >= 1).all())
        True
    """
    return _over_gram(line_shape_score_kernel, ds, "line_shape_score")


def expodistance(ds: xr.Dataset) -> xr.DataArray:
    """Return std_l(α^l) / mean_l(α^l) with α^l = ln(‖x^l‖ / ‖x^{l−1}‖): 0 for exponential growth.

    Expodistance of arXiv 2407.07810, with the population standard deviation.

    Args:
        ds: dataset of the schema, in memory or lazy; lazy stays lazy.

    Returns:
        float64, dimensionless, (prompt, token). Negative when norms shrink on the whole, without
        bound when they end where they began; NaN where a state is exactly zero or never changes
        its norm, and where a shorter prompt is padded.

    Example:
        >>> bc.expodistance(ds).dims
        ('prompt', 'token')
    """
    return _over_gram(expodistance_kernel, ds, "expodistance")


def equidistance(ds: xr.Dataset) -> xr.DataArray:
    """Return std_l ‖δ^l‖ / mean_l ‖δ^l‖ of every token: 0 for equal steps.

    Args:
        ds: dataset of the schema, in memory or lazy; lazy stays lazy.

    Returns:
        float64, dimensionless, (prompt, token). NaN where all steps are zero and where a shorter
        prompt is padded.

    Example:
        >>> bool((bc.equidistance(ds).dropna("token") >= 0).all())
        True
    """
    return _over_gram(equidistance_kernel, ds, "equidistance")


def line_shape_score_kernel(gram: Gram) -> Float[np.ndarray, "*any"]:
    """Return the line-shape score.

    ‖Σ u_l‖² = L² − Σ_{l,l'} (1 − cos(δ^l, δ^l')): near a straight line the sum is small and each
    of its terms at least 0, so that rounding cannot give a score below 1.
    """
    steps = gram[..., 1:, 1:]
    norms = _norms(steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = steps / (norms[..., :, None] * norms[..., None, :])
        bend = (1 - np.clip(cosines, -1, 1)).mean(axis=(-2, -1))
        return 1 / np.sqrt(np.maximum(1 - bend, 0))


def expodistance_kernel(gram: Gram) -> Float[np.ndarray, "*any"]:
    """Return the expodistance.

    ‖x^l‖² − ‖x^{l−1}‖² = 2⟨x^{l−1}, δ^l⟩ + ‖δ^l‖² comes from the Gram matrix without
    cancellation, and log1p keeps the digits of slow growth.
    """
    inner = np.triu(gram, 1).sum(axis=-2)[..., 1:]  # ⟨x^{l−1}, δ^l⟩
    growth = 2 * inner + np.diagonal(gram, axis1=-2, axis2=-1)[..., 1:]
    start = gram[..., 0, 0, None]
    before = start + np.concatenate([0 * start, np.cumsum(growth, axis=-1)[..., :-1]], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _variation(0.5 * np.log1p(growth / before))


def equidistance_kernel(gram: Gram) -> Float[np.ndarray, "*any"]:
    """Return the equidistance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return _variation(_norms(gram[..., 1:, 1:]))


def _norms(gram: Gram) -> Float[np.ndarray, "*any L"]:
    return np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))


def _variation(values: Float[np.ndarray, "*any L"]) -> Float[np.ndarray, "*any"]:
    return values.std(axis=-1) / values.mean(axis=-1)


def _over_gram(kernel: Callable[[Gram], np.ndarray], ds: xr.Dataset, name: str) -> xr.DataArray:
    return apply(kernel, ds["gram"], core=[["state", "state_other"]]).rename(name)
