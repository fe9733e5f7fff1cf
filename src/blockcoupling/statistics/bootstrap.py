"""Resampling of independent units: weights of the points in each resample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockcoupling.statistics.partial import weighted_correlations

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def redraw(units: ArrayLike, *, resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw units with replacement, all points of a unit together.

    Args:
        units: (n,) the unit of each point.
        resamples: number of draws.
        seed: equal seeds and units give equal draws.

    Returns:
        (resamples, n): how often each point is in each draw.
    """
    _, owner = np.unique(np.asarray(units), return_inverse=True)
    number = owner.max() + 1
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), resamples)
    return draws[:, owner].astype(float)


def without_each(units: ArrayLike) -> NDArray[np.float64]:
    """Leave out each unit in turn: (units, n), 0 for the points of that unit and 1 for others."""
    _, owner = np.unique(np.asarray(units), return_inverse=True)
    return (np.arange(owner.max() + 1)[:, None] != owner).astype(float)


def bootstrap_r2(
    x: ArrayLike, y: ArrayLike, units: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Return R² in resamples of units; equal seeds and units give the same resamples for any x, y.

    Checkpoints of one model are not independent points: drawing them singly would make the interval
    too narrow. With one point per unit this is the ordinary bootstrap.

    Args:
        x: (n,).
        y: (n,).
        units: (n,) the independent unit of each point.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        (resamples,); NaN where x or y is constant in a draw.
    """
    weights = redraw(units, resamples=resamples, seed=seed)
    return np.square(weighted_correlations(x, y, weights))
