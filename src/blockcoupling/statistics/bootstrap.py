"""How sure one can be when several points belong to one model: whole models are redrawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def redraw(units: ArrayLike, *, resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw units with replacement, all points of a unit together.

    Args:
        units: (n,) which unit each point belongs to.
        resamples: how many draws.
        seed: equal seeds and units give equal draws.

    Returns:
        (resamples, n): how often each point is in each draw.

    """
    _, owner = np.unique(np.asarray(units), return_inverse=True)
    number = owner.max() + 1
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), resamples)
    return draws[:, owner].astype(float)


def bootstrap_r2(
    x: ArrayLike, y: ArrayLike, models: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Draw models with replacement and return R² of each draw, all points of a model together.

    Checkpoints of one model are no independent points: drawing them singly would make the interval
    too narrow. With one point per model this is the ordinary bootstrap.

    Args:
        x: (n,).
        y: (n,).
        models: (n,) which model each point belongs to.
        resamples: how many draws.
        seed: of the draws; equal seeds and models give equal draws for every x and y.

    Returns:
        (resamples,); NaN where x or y is constant in a draw.

    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    weight = redraw(models, resamples=resamples, seed=seed)
    weight /= weight.sum(axis=1, keepdims=True)
    # Standardized first: the moments below then lose nothing to cancellation.
    a, b = ((v - v.mean()) / (v.std() or 1.0) for v in (a, b))
    mean_a, mean_b = weight @ a, weight @ b
    var_a, var_b = weight @ a**2 - mean_a**2, weight @ b**2 - mean_b**2
    covariance = weight @ (a * b) - mean_a * mean_b
    defined = (var_a > 1e-12) & (var_b > 1e-12)
    r2 = np.full(resamples, np.nan)
    r2[defined] = (covariance**2)[defined] / (var_a * var_b)[defined]
    return r2.clip(0, 1)
