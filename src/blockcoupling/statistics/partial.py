"""Correlation controlling for other variables, and in many resamples at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_NOTHING_LEFT = 1e-10
"""Residuals below this share of a variable's spread are rounding."""


class Partial(NamedTuple):
    """A partial correlation."""

    r: float
    p: float
    freedom: int


def partial_correlation(x: ArrayLike, y: ArrayLike, covariates: ArrayLike) -> Partial:
    """Correlate the residuals of x and of y from a linear fit on covariates.

    Args:
        x: (n,).
        y: (n,).
        covariates: (n, c); constant or redundant columns change nothing.

    Returns:
        r, its two-sided p from Student's t and the degrees of freedom n − 2 − rank. This p is the
        one of x in the least-squares fit of y on x and the covariates. r and p are missing when
        there are fewer than two degrees of freedom, or when the covariates determine x or y.
    """
    from scipy import stats

    basis = _basis(covariates, len(np.asarray(x)))
    freedom = len(basis) - 2 - (basis.shape[1] - 1)
    rest = []
    for values in (np.asarray(x, float), np.asarray(y, float)):
        centred = values - values.mean()
        left = centred - basis @ (basis.T @ centred)
        if freedom < 2 or np.linalg.norm(left) <= _NOTHING_LEFT * np.linalg.norm(centred):
            return Partial(np.nan, np.nan, freedom)
        rest.append(left / np.linalg.norm(left))
    r = float(np.clip(rest[0] @ rest[1], -1, 1))
    with np.errstate(divide="ignore"):
        t = r * np.sqrt(np.divide(freedom, 1 - r**2))
    return Partial(r, float(2 * stats.t.sf(abs(t), freedom)), freedom)


def weighted_correlations(
    x: ArrayLike, y: ArrayLike, weights: NDArray[np.float64], covariates: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the (partial) correlation of x and y under each row of weights.

    Args:
        x: (n,).
        y: (n,).
        weights: (resamples, n) how often each point is in each resample.
        covariates: (n, c), fitted again in each resample.

    Returns:
        (resamples,); NaN where x or y is constant, or determined by the covariates.
    """
    n = weights.shape[1]
    basis = _basis(np.empty((n, 0)) if covariates is None else covariates, n)
    # Residuals over all points first: the moments below then lose nothing to cancellation.
    rest = []
    for values in (np.asarray(x, float), np.asarray(y, float)):
        centred = values - values.mean()
        left = centred - basis @ (basis.T @ centred)
        rest.append(left / (np.linalg.norm(left) or 1.0))
    columns = np.column_stack([*rest, basis])
    # One product for all resamples: second moments of x, y and the covariates.
    products = np.einsum("na,nb->nab", columns, columns).reshape(n, -1)
    moments = (weights @ products).reshape(-1, columns.shape[1], columns.shape[1])
    cross = moments[:, :2, 2:]
    inverse = np.linalg.pinv(moments[:, 2:, 2:], rcond=_NOTHING_LEFT, hermitian=True)
    left = moments[:, :2, :2] - cross @ inverse @ cross.transpose(0, 2, 1)
    spread = np.diagonal(left, axis1=1, axis2=2)
    defined = (spread > 1e-12 * weights.mean(axis=1)[:, None]).all(axis=1)
    r = np.full(len(weights), np.nan)
    r[defined] = left[defined, 0, 1] / np.sqrt(spread[defined].prod(axis=1))
    return r.clip(-1, 1)


def _basis(covariates: ArrayLike, n: int) -> NDArray[np.float64]:
    """Return orthonormal columns that span the constant and the covariates, (n, 1 + rank)."""
    from scipy import linalg

    z = np.asarray(covariates, float).reshape(n, -1)
    z = z - z.mean(axis=0) if n else z
    scale = np.abs(z).max(axis=0, initial=0)
    # Covariates may differ in size, and some may be copies of others up to rounding.
    span = linalg.orth(z[:, scale > 0] / scale[scale > 0], rcond=_NOTHING_LEFT)
    return np.column_stack([np.full(n, n**-0.5), span])
