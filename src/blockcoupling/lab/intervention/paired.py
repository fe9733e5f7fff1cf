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
POWER = 0.8
TOO_FEW = "fewer than two pairs: no interval, no test"
NO_SCATTER = "all pairs differ by the same: no interval, no test"


def paired_difference(
    treated: ArrayLike, control: ArrayLike, smallest: float | None = None, lost: str = ""
) -> dict[str, Any]:
    """Return the mean difference of pairs with its t interval and tests.

    Args:
        treated: (n,) one of each pair; pairs that lack a value are excluded.
        control: (n,) the other.
        smallest: smallest difference that would matter; None means no test of equivalence.
        lost: why pairs lack a value, where that is known.

    Returns:
        pairs, estimate (mean of treated − control), low, high (95 %, Student's t), p (paired t
        test), sd (of the differences), detectable (see :func:`detectable`), p_equivalent (two
        one-sided paired t tests against ± smallest, Schuirmann 1987: small where the difference is
        too small to matter), pairs_for_equivalence (see there), note.
    """
    difference = np.asarray(treated, float) - np.asarray(control, float)
    known = np.isfinite(difference)
    difference = difference[known]
    row = {**_mean(difference), "p_equivalent": np.nan, "pairs_for_equivalence": np.nan}
    if not known.all():
        lost = lost or f"{(~known).sum()} of {len(known)} pairs lack a finite value"
        row["note"] = "; ".join(filter(None, [lost, row["note"]]))
    if smallest is not None and np.isfinite(row["p"]):
        from statsmodels.stats.weightstats import DescrStatsW

        row["p_equivalent"] = float(DescrStatsW(difference).ttost_mean(-smallest, smallest)[0])
        row["pairs_for_equivalence"] = pairs_for_equivalence(row["sd"], smallest)
    return row


def detectable(sd: float, pairs: int) -> float:
    """Return the smallest difference that a paired t test at 5 % finds with a power of 80 %.

    Args:
        sd: standard deviation of the differences of pairs.
        pairs: their number, two at least.
    """
    from statsmodels.stats.power import TTestPower

    return sd * float(TTestPower().solve_power(nobs=pairs, alpha=0.05, power=POWER))


def equivalence_power(sd: float, smallest: float, pairs: int) -> float:
    """Return the power of two one-sided paired t tests at 5 % where the true difference is 0.

    The mean of n differences is normal, and independent of their variance: the power given the
    variance is averaged over its distribution (χ² with n − 1 degrees of freedom).

    Args:
        sd: standard deviation of the differences.
        smallest: the margin.
        pairs: n, two at least.
    """
    from scipy import stats

    shares = (np.arange(2000) + 0.5) / 2000
    drawn = sd * np.sqrt(stats.chi2.ppf(shares, pairs - 1) / (pairs - 1))
    room = smallest - stats.t.ppf(0.95, pairs - 1) * drawn / np.sqrt(pairs)
    reach = np.sqrt(pairs) * room.clip(min=0) / sd
    return float((2 * stats.norm.cdf(reach) - 1).mean())


def pairs_for_equivalence(sd: float, smallest: float) -> int:
    """Return the pairs that :func:`equivalence_power` needs to reach 80 %.

    Args:
        sd: standard deviation of the differences.
        smallest: the margin.
    """
    low, high = 1, 2
    while equivalence_power(sd, smallest, high) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = equivalence_power(sd, smallest, middle) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def slope_in_pairs(x: ArrayLike, y: ArrayLike, sets: ArrayLike) -> dict[str, Any]:
    """Return the least-squares slope of y on x with a constant for each set.

    A constant that a set shares, whatever its mean x, changes nothing. A set in which x hardly
    varies hardly counts, where its own slope would be mostly noise. The error is that of a
    jackknife over sets (seeds), which are independent, and Student's t has as many degrees of
    freedom as there are sets less one.

    Args:
        x: (n,)
        y: (n,) points that lack a finite x or y are excluded.
        sets: (n,) the set of each point.

    Returns:
        pairs (sets in which x varies), points, estimate, low, high, p, note.
    """
    from scipy import stats

    a, b, owner = np.asarray(x, float), np.asarray(y, float), np.asarray(sets).astype(str)
    known = np.isfinite(a) & np.isfinite(b)
    moments = []
    points = 0
    for each in dict.fromkeys(owner):
        own = known & (owner == each)
        if own.sum() >= 2 and not is_constant(a[own]):
            rest_a, rest_b = a[own] - a[own].mean(), b[own] - b[own].mean()
            moments.append((rest_a @ rest_a, rest_a @ rest_b))
            points += int(own.sum())
    xx, xy = np.array(moments).reshape(-1, 2).T
    count = len(xx)
    row: dict[str, Any] = {"pairs": count, "points": points}
    row |= {"estimate": float(xy.sum() / xx.sum()) if count else np.nan, "note": ""}
    row |= dict.fromkeys(("low", "high", "p"), np.nan)
    if count < 2:
        return row | {"note": TOO_FEW}
    without = (xy.sum() - xy) / (xx.sum() - xx)
    error = np.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
    weak = int((xx < 0.1 * xx.mean()).sum())
    if weak:
        row["note"] = f"{weak} of {count} pairs hardly differ in coupling, and hardly count"
    if error <= 1e-12 * abs(row["estimate"]):
        return row | {"note": "; ".join(filter(None, [row["note"], NO_SCATTER]))}
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * error)
    p = float(2 * stats.t.sf(abs(row["estimate"] / error), count - 1))
    return row | {"low": row["estimate"] - reach, "high": row["estimate"] + reach, "p": p}


def _mean(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean, its Student interval and test against 0, over independent values."""
    from scipy import stats

    missing = dict.fromkeys(("low", "high", "p", "sd", "detectable"), np.nan)
    row: dict[str, Any] = {"pairs": len(values), **missing}
    row["estimate"] = float(values.mean()) if len(values) else np.nan
    if len(values) < 2:
        return {**row, "note": TOO_FEW}
    if is_constant(values):
        return {**row, "note": NO_SCATTER}
    found = stats.ttest_1samp(values, 0)
    low, high = found.confidence_interval(CONFIDENCE)
    row |= {"low": float(low), "high": float(high), "p": float(found.pvalue)}
    sd = float(values.std(ddof=1))
    return {**row, "sd": sd, "detectable": detectable(sd, len(values)), "note": ""}
