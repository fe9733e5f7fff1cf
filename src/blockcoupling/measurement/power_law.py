"""A power law fitted to the upper end of some numbers, and where that end begins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class PowerLaw(NamedTuple):
    """A density ∝ x^(−exponent) from `smallest` on.

    Attributes:
        exponent: α; NaN where there are no two different numbers.
        smallest: x_min, the number that the tail begins with.
        tail: how many numbers are in the tail.
        distance: Kolmogorov-Smirnov distance between the tail and its fit, 0 … 1.
    """

    exponent: float
    smallest: float
    tail: int
    distance: float


def fit(values: Float[np.ndarray, " number"]) -> PowerLaw:
    """Fit the tail by maximum likelihood, beginning where it is closest to its fit.

    Clauset, Shalizi & Newman (2009, doi:10.1137/070710111), sections 3.1 and 3.3: for every x_min
    among the numbers α = 1 + n / Σ ln(x_i / x_min) over the n numbers x_i ≥ x_min, and of these the
    x_min at which the Kolmogorov-Smirnov distance is the smallest. It is never below 1/(2n), which
    keeps the tail from having a few numbers only.

    Args:
        values: positive numbers, in any order.
    """
    x = np.sort(np.asarray(values, np.float64))
    log = np.log(x)
    starts = np.flatnonzero(np.diff(x, prepend=-np.inf) > 0)[:-1]  # not the largest alone
    best = PowerLaw(np.nan, np.nan, 0, np.nan)
    for start in starts:
        above = log[start:] - log[start]
        n = len(above)
        decay = n / above.sum()  # α − 1
        cumulative = -np.expm1(-decay * above)
        steps = np.arange(n + 1) / n  # of the numbers' own distribution, before and after each
        distance = max((steps[1:] - cumulative).max(), (cumulative - steps[:-1]).max())
        if not distance >= best.distance:
            best = PowerLaw(1 + decay, float(x[start]), n, float(distance))
    return best
