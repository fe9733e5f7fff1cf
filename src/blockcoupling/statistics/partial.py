"""Correlation of two things with others held fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Partial(NamedTuple):
    """A correlation with other variables held fixed."""

    r: float
    p: float
    freedom: int


def partial_correlation(x: ArrayLike, y: ArrayLike, covariates: ArrayLike) -> Partial:
    """Correlate what is left of x and of y after a linear fit on covariates.

    Args:
        x: (n,).
        y: (n,).
        covariates: (n, c); constant or redundant columns change nothing.

    Returns:
        r, its two-sided p from Student's t and the degrees of freedom n − 2 − rank. This p is the
        one of x in the least-squares fit of y on x and the covariates. r and p are missing when
        there are fewer than two degrees of freedom, or when the covariates determine x or y.

    """
    import statsmodels.api as sm
    from scipy import linalg, stats

    a, b = np.asarray(x, float), np.asarray(y, float)
    z = np.asarray(covariates, float).reshape(len(a), -1)
    z = z - z.mean(axis=0)
    scale = np.abs(z).max(axis=0)
    # Covariates of any size, some of them one another's copies up to rounding: a basis of them.
    basis = linalg.orth(z[:, scale > 0] / scale[scale > 0], rcond=1e-10)
    held = np.column_stack([np.ones(len(a)), basis])
    freedom = len(a) - 2 - basis.shape[1]
    rest = [sm.OLS(values, held).fit().resid for values in (a, b)]
    for values, left in zip((a, b), rest, strict=True):
        if np.linalg.norm(left) <= 1e-10 * np.linalg.norm(values - values.mean()):
            return Partial(np.nan, np.nan, freedom)
    if freedom < 2:
        return Partial(np.nan, np.nan, freedom)
    r = float(np.clip(rest[0] @ rest[1] / np.linalg.norm(rest[0]) / np.linalg.norm(rest[1]), -1, 1))
    with np.errstate(divide="ignore"):
        t = r * np.sqrt(np.divide(freedom, 1 - r**2))
    return Partial(r, float(2 * stats.t.sf(abs(t), freedom)), freedom)
