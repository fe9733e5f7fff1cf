"""One predictor against one score: slope, R², correlations, and what they are worth in words.

The statistics are those of SciPy and statsmodels; a `note` says when a number means little or
cannot be given at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from blockcoupling.statistics.bootstrap import bootstrap_r2
from blockcoupling.statistics.partial import partial_correlation

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

FEWEST = 4
"""With fewer points no p-value and no interval is given."""


def is_constant(values: ArrayLike) -> bool:
    """Tell whether values differ by no more than rounding (1e-12 of their size)."""
    array = np.asarray(values, dtype=float)
    return bool(np.ptp(array) <= 1e-12 * np.abs(array).max())


def relate(
    x: ArrayLike,
    y: ArrayLike,
    models: ArrayLike | None = None,
    *,
    covariates: pd.DataFrame | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Hold one predictor against one score.

    Args:
        x: predictor, (n,); points that lack x or y are left out, and the note counts them.
        y: score, (n,).
        models: (n,) which model each point belongs to (default: each its own).
        covariates: (n, c) what the partial correlation holds fixed; points that lack one of them
            are left out of it, columns that nobody knows are ignored.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        n, models, slope, intercept, r2, r2_low, r2_high (95 % percentile interval of
        :func:`bootstrap_r2`), pearson, pearson_p, spearman, spearman_p, partial, partial_p,
        partial_n, partial_given, note. What cannot be computed is NaN and the note says why.

    """
    from scipy import stats

    a, b = np.asarray(x, float), np.asarray(y, float)
    owners = np.arange(len(a)) if models is None else np.asarray(models)
    known = np.isfinite(a) & np.isfinite(b)
    notes = [f"{(~known).sum()} of {len(a)} points lack a value"] if not known.all() else []
    a, b, owners = a[known], b[known], owners[known]
    n, number = len(a), len(np.unique(owners))
    names = ["slope", "intercept", "r2", "r2_low", "r2_high", "pearson", "pearson_p"]
    names += ["spearman", "spearman_p", "partial", "partial_p"]
    result: dict[str, Any] = {"n": n, "models": number, **dict.fromkeys(names, np.nan)}
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
        else:
            result |= {"pearson_p": stats.pearsonr(a, b).pvalue, "spearman_p": rank.pvalue}
            if number < n:
                notes.append(
                    f"{n} points of {number} model{'s' if number > 1 else ''} are not independent, "
                    "as the p-values take them to be"
                )
            notes += _interval(result, bootstrap_r2(a, b, owners, resamples=resamples, seed=seed))
            if covariates is not None:
                notes += _held_fixed(result, a, b, covariates[known])
    return result | {"note": "; ".join(notes)}


def _interval(result: dict[str, Any], draws: NDArray[np.float64]) -> list[str]:
    """Fill in the interval of R²; return what has to be said about it."""
    if result["models"] < 2:
        return ["one model: no interval by resampling models"]
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return ["no interval: R² is defined in none of the resamples"]
    result["r2_low"], result["r2_high"] = np.percentile(defined, [2.5, 97.5])
    notes = []
    if result["models"] < FEWEST:
        notes.append(f"interval from {result['models']} models only")
    if len(defined) < len(draws):
        lost = 1 - len(defined) / len(draws)
        notes.append(f"R² undefined in {lost:.1%} of the resamples, which are left out")
    return notes


def _held_fixed(
    result: dict[str, Any], x: NDArray[np.float64], y: NDArray[np.float64], held: pd.DataFrame
) -> list[str]:
    """Fill in the partial correlation; return what has to be said about it."""
    held = held.dropna(axis=1, how="all")
    whole = held.notna().all(axis=1).to_numpy()
    held, x, y = held[whole], x[whole], y[whole]
    held = held.loc[:, [not is_constant(held[name]) for name in held]] if len(held) else held
    result |= {"partial_n": len(held), "partial_given": ", ".join(held.columns)}
    if not len(held.columns):
        return ["partial: nothing known to hold fixed"]
    partial = partial_correlation(x, y, held.to_numpy(float))
    result |= {"partial": partial.r, "partial_p": partial.p}
    if np.isfinite(partial.r):
        return []
    if partial.freedom < 2:
        return [f"partial: too few points ({len(x)}) for {len(held.columns)} covariates"]
    return ["partial: the covariates determine the predictor or the score"]
