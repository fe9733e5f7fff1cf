"""Effect of one property of models on another, controlling for others, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd


class Effect(NamedTuple):
    """A slope with its 95 % interval; NaN where it is not defined."""

    slope: float
    low: float
    high: float
    n: int


def effect(table: pd.DataFrame, of: str, on: str, fixed: Sequence[str] = ()) -> Effect:
    """Return the least-squares slope of `on` on `of`, with a constant for each fixed value.

    Rows are independent models. Models trained with the same seed have the same initial weights:
    fix the seed, too, to compare within pairs. The interval is Student's t, of the residuals.

    Args:
        table: one row per model.
        of: column of the cause.
        on: column of the outcome.
        fixed: columns whose values have a constant each.
    """
    import statsmodels.api as sm

    rows = table[list(dict.fromkeys([of, on, *fixed]))].dropna()
    missing = Effect(np.nan, np.nan, np.nan, len(rows))
    if rows[of].nunique() < 2:
        return missing
    constants = np.ones((len(rows), 1))
    for column in fixed:
        groups = pd.get_dummies(rows[column].astype(str), drop_first=True, dtype=float)
        constants = np.hstack([constants, groups.to_numpy(float)])
    x = rows[of].to_numpy(float)
    if np.square(sm.OLS(x, constants).fit().resid).sum() <= 1e-18 * float(x @ x):
        return missing
    fit = sm.OLS(rows[on].to_numpy(float), np.column_stack([x, constants])).fit()
    if fit.df_resid < 1:
        return Effect(float(fit.params[0]), np.nan, np.nan, len(rows))
    low, high = fit.conf_int()[0]
    return Effect(float(fit.params[0]), float(low), float(high), len(rows))
