"""One predictor against one score: slope, R², correlations with intervals and p-values.

The statistics are those of SciPy. Where points are not independent (checkpoints of a model, models
of a family), p-values are by a jackknife over independent units; all intervals are. A `note` states
when a number means little or cannot be computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from blockcoupling.statistics.bootstrap import bootstrap_r2, without_each
from blockcoupling.statistics.factors import CLASS
from blockcoupling.statistics.partial import partial_correlation, weighted_correlations

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

FEWEST = 4
"""With fewer points no p-value and no interval is given."""

NUMBERS = (
    *("slope", "intercept", "r2", "r2_low", "r2_high"),
    *("pearson", "pearson_low", "pearson_high", "pearson_p", "spearman", "spearman_p"),
    *("partial", "partial_low", "partial_high", "partial_p"),
    *("r2_over_coupling", "r2_over_coupling_low", "r2_over_coupling_high"),
)
"""Numbers of :func:`relate` that may be missing."""


def is_constant(values: ArrayLike) -> bool:
    """Return whether values differ by no more than rounding (1e-12 of their size)."""
    array = np.asarray(values, dtype=float)
    return bool(np.ptp(array) <= 1e-12 * np.abs(array).max())


def relate(
    x: ArrayLike,
    y: ArrayLike,
    units: ArrayLike | None = None,
    *,
    unit: str = "model",
    covariates: pd.DataFrame | None = None,
    coupling: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Relate one predictor to one score.

    Args:
        x: predictor, (n,); points without a finite x and y are excluded, and counted in the note.
        y: score, (n,).
        units: (n,) the independent unit of each point (default: each point is one).
        unit: word for a unit in notes.
        covariates: (n, c) numeric columns to control for; points that lack one of them are excluded
            from the partial correlation, columns without any value are ignored.
        coupling: (n,) whose R² is subtracted from that of x, on the points that have both.
        resamples: number of bootstrap resamples for the interval of this difference.
        seed: of the bootstrap.

    Returns:
        n, units (their number), :data:`NUMBERS`, partial_n, partial_given, note. Intervals are
        95 %; those of R² are the squares of those of Pearson's r. What cannot be computed is NaN,
        and the note says why.
    """
    from scipy import stats

    a, b = np.asarray(x, float), np.asarray(y, float)
    owners = np.arange(len(a)) if units is None else np.asarray(units)
    known = np.isfinite(a) & np.isfinite(b)
    notes = [f"{(~known).sum()} of {len(a)} points lack a finite value"] if not known.all() else []
    a, b, owners = a[known], b[known], owners[known]
    n, number = len(a), len(np.unique(owners))
    result: dict[str, Any] = {"n": n, "units": number, **dict.fromkeys(NUMBERS, np.nan)}
    result |= {"partial_n": 0, "partial_given": ""}

    if n < 2:
        notes.append(f"n = {n}: nothing to fit")
    elif is_constant(a):
        notes.append("constant predictor: no correlation, no p-value")
    elif is_constant(b):
        notes.append("constant score: no correlation, no p-value")
    else:
        line, rank = stats.linregress(a, b), stats.spearmanr(a, b)
        result |= {"slope": line.slope, "intercept": line.intercept, "r2": line.rvalue**2}
        result |= {"pearson": line.rvalue, "spearman": rank.statistic}
        if n < FEWEST:
            notes.append(f"n = {n}: too few points for a p-value or an interval")
            return result | {"note": "; ".join(notes)}
        notes += _about_units(n, number, unit)
        result |= {"pearson_p": stats.pearsonr(a, b).pvalue, "spearman_p": rank.pvalue}
        found = jackknife(a, b, owners, line.rvalue)
        result |= {"pearson_low": found.low, "pearson_high": found.high}
        result |= dict(zip(("r2_low", "r2_high"), squared(found.low, found.high), strict=True))
        if 1 < number < n:
            ranks = (stats.rankdata(a), stats.rankdata(b))
            result["spearman_p"] = jackknife(*ranks, owners, rank.statistic).p
            result["pearson_p"] = found.p
        if number > 1 and np.isnan(found.low):
            notes.append(f"no interval: r is ±1, or undefined without one {unit}")
        if covariates is not None:
            notes += _controlled(result, a, b, owners, covariates[known])
        if coupling is not None and number > 1:
            other = np.asarray(coupling, float)[known]
            result |= _over_coupling(a, b, other, owners, resamples=resamples, seed=seed)
    return result | {"note": "; ".join(notes)}


def _about_units(n: int, number: int, unit: str) -> list[str]:
    """Return what dependent points mean for p-values and intervals."""
    if number == n:
        return []
    if number == 1:
        return [f"{n} points of 1 {unit}: no interval, and p-values as if they were independent"]
    several = "families" if unit == "family" else f"{unit}s"
    few = " only" if number < FEWEST else ""
    return [f"{n} points of {number} {several}{few}: p-values and intervals by jackknife over them"]


class Jackknife(NamedTuple):
    """The 95 % interval of a correlation, and the two-sided p of its being 0."""

    low: float
    high: float
    p: float


def jackknife(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    units: NDArray[Any],
    r: float,
    covariates: NDArray[np.float64] | None = None,
) -> Jackknife:
    """Leave out each unit in turn, on Fisher's scale atanh r.

    Student's t has as many degrees of freedom as there are units less one. docs/statistics.md
    has level and coverage.

    Args:
        x: (n,).
        y: (n,).
        units: (n,) the independent unit of each point.
        r: correlation over all points.
        covariates: (n, c) of a partial correlation.

    Returns:
        NaN where there is one unit, r is ±1, or without some unit undefined.
    """
    from scipy import stats

    without = without_each(units)
    count = len(without)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.arctanh(r)
        values = np.arctanh(weighted_correlations(x, y, without, covariates))
        error = np.sqrt((count - 1) / count * np.square(values - values.mean()).sum())
    if count < 2 or abs(r) > 1 - 1e-12 or not np.isfinite(error) or error == 0:
        return Jackknife(np.nan, np.nan, np.nan)
    reach = stats.t.ppf(0.975, count - 1) * error
    p = 2 * stats.t.sf(abs(z / error), count - 1)
    return Jackknife(float(np.tanh(z - reach)), float(np.tanh(z + reach)), float(p))


def squared(low: float, high: float) -> tuple[float, float]:
    """Return the interval of r² that belongs to an interval of r; it begins at 0 if that has 0."""
    ends = sorted((low**2, high**2))
    return (0.0 if low < 0 < high else ends[0]), ends[1]


def _controlled(
    result: dict[str, Any],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    units: NDArray[Any],
    covariates: pd.DataFrame,
) -> list[str]:
    """Fill in the partial correlation; return notes about it."""
    held = covariates.dropna(axis=1, how="all")
    whole = held.notna().all(axis=1).to_numpy()
    held, x, y, units = held[whole], x[whole], y[whole], units[whole]
    held = held.loc[:, [not is_constant(held[name]) for name in held]] if len(held) else held
    names = dict.fromkeys(str(name).split(CLASS)[0] for name in held)
    result |= {"partial_n": len(held), "partial_given": ", ".join(names)}
    if not len(held.columns):
        return ["partial: no known covariate that varies"]
    z = held.to_numpy(float)
    partial = partial_correlation(x, y, z)
    result |= {"partial": partial.r, "partial_p": partial.p}
    if np.isnan(partial.r):
        if partial.freedom < 2:
            return [f"partial: too few points ({len(x)}) for {len(names)} covariates"]
        return ["partial: the covariates determine the predictor or the score"]
    found = jackknife(x, y, units, partial.r, z)
    result |= {"partial_low": found.low, "partial_high": found.high}
    if 1 < len(np.unique(units)) < len(x):
        result["partial_p"] = found.p
    return []


def _over_coupling(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    coupling: NDArray[np.float64],
    units: NDArray[Any],
    *,
    resamples: int,
    seed: int,
) -> dict[str, float]:
    """R² of x less R² of coupling, with its interval over the same resamples of units."""
    both = np.isfinite(coupling)
    x, y, coupling, units = x[both], y[both], coupling[both], units[both]
    if len(x) < FEWEST or is_constant(coupling) or is_constant(x) or np.array_equal(x, coupling):
        return {}
    draws = [bootstrap_r2(each, y, units, resamples=resamples, seed=seed) for each in (x, coupling)]
    whole = [np.corrcoef(each, y)[0, 1] ** 2 for each in (x, coupling)]
    difference = draws[0] - draws[1]
    if not np.isfinite(difference).any():
        return {}
    low, high = np.nanpercentile(difference, [2.5, 97.5])
    name = "r2_over_coupling"
    return {name: whole[0] - whole[1], f"{name}_low": float(low), f"{name}_high": float(high)}
