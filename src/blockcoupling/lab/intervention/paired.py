"""Paired comparisons: a difference with tests of zero and of equivalence; a slope within pairs.

Effects that members of a pair share (a seed, a depth) cancel. The tests are those of SciPy and
statsmodels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from blockcoupling.statistics.regression import is_constant

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95


def paired_difference(
    treated: ArrayLike, control: ArrayLike, smallest: float | None = None
) -> dict[str, Any]:
    """Return the mean difference of pairs with its t interval and tests.

    Args:
        treated: (n,) one of each pair; pairs that lack a value are excluded.
        control: (n,) the other.
        smallest: smallest difference that would matter; None means no test of equivalence.

    Returns:
        pairs, estimate (mean of treated − control), low, high (95 %, Student's t), p (paired t
        test), p_equivalent (two one-sided paired t tests against ± smallest, Schuirmann 1987: small
        where the difference is too small to matter), note.

    """
    difference = np.asarray(treated, float) - np.asarray(control, float)
    difference = difference[np.isfinite(difference)]
    row = {**_mean(difference), "p_equivalent": np.nan}
    if smallest is not None and np.isfinite(row["p"]):
        from statsmodels.stats.weightstats import DescrStatsW

        row["p_equivalent"] = float(DescrStatsW(difference).ttost_mean(-smallest, smallest)[0])
    return row


def slope_in_pairs(x: ArrayLike, y: ArrayLike, sets: ArrayLike) -> dict[str, Any]:
    """Return the slope of y on x within sets: the mean of the sets' own least-squares slopes.

    Sets (seeds) are what was drawn; each has one slope, and the t interval and test are over them.
    An offset that all of a set share, however it goes with the set's mean x, changes nothing.

    Args:
        x: (n,)
        y: (n,) points that lack x or y are left out.
        sets: (n,) which set each belongs to; one with fewer than two different x has no slope.

    Returns:
        pairs (sets with a slope), points, estimate, low, high, p, note.

    """
    a, b, owner = np.asarray(x, float), np.asarray(y, float), np.asarray(sets).astype(str)
    known = np.isfinite(a) & np.isfinite(b)
    slopes, points = [], 0
    for each in dict.fromkeys(owner):
        own = known & (owner == each)
        if own.sum() >= 2 and not is_constant(a[own]):
            slopes.append(np.polyfit(a[own], b[own], 1)[0])
            points += int(own.sum())
    return {**_mean(np.array(slopes)), "points": points}


def _mean(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean, its Student interval and test against 0, over independent values."""
    from scipy import stats

    row: dict[str, Any] = {"pairs": len(values), **dict.fromkeys(("low", "high", "p"), np.nan)}
    row["estimate"] = float(values.mean()) if len(values) else np.nan
    if len(values) < 2:
        return {**row, "note": "fewer than two pairs: no interval, no test"}
    if is_constant(values):
        return {**row, "note": "all pairs differ by the same: no interval, no test"}
    found = stats.ttest_1samp(values, 0)
    low, high = found.confidence_interval(CONFIDENCE)
    row |= {"low": float(low), "high": float(high), "p": float(found.pvalue)}
    return {**row, "note": ""}
