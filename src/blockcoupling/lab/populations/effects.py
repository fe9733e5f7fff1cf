"""The effect of one property of models on another, with others held fixed, and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd


class Effect(NamedTuple):
    """A slope with its 95 % interval; NaN where it cannot be told."""

    slope: float
    low: float
    high: float
    n: int


def effect(table: pd.DataFrame, of: str, on: str, fixed: Sequence[str] = ()) -> Effect:
    """Return the least-squares slope of `on` against `of`, a constant for each value held fixed.

    Rows are independent models. Where models were trained with the same seeds, hold those fixed
    too: they begin with the same weights, and what is left is the difference within pairs. The
    interval is Student's t, of the residuals.

    Args:
        table: one row per model.
        of: the column whose effect it is.
        on: the column that it is an effect on.
        fixed: columns of which each value has a constant of its own.

    """
    rows = table[list(dict.fromkeys([of, on, *fixed]))].dropna()
    missing = Effect(np.nan, np.nan, np.nan, len(rows))
    if rows[of].nunique() < 2:
        return missing
    constants = [np.ones((len(rows), 1))]
    for column in fixed:
        dummies = pd.get_dummies(rows[column].astype(str), drop_first=True)
        constants.append(dummies.to_numpy(float))
    x, y = rows[of].to_numpy(float), rows[on].to_numpy(float)
    rest_x, rank = _rest(x, np.hstack(constants))
    rest_y, _ = _rest(y, np.hstack(constants))
    size = float(rest_x @ rest_x)
    if size <= 1e-18 * float(x @ x):
        return missing
    slope = float(rest_x @ rest_y) / size
    freedom = len(rows) - rank - 1
    if freedom < 1:
        return Effect(slope, np.nan, np.nan, len(rows))
    from scipy.stats import t

    error = np.sqrt(np.square(rest_y - slope * rest_x).sum() / freedom / size)
    reach = float(t.ppf(0.975, freedom) * error)
    return Effect(slope, slope - reach, slope + reach, len(rows))


def _rest(values: np.ndarray, constants: np.ndarray) -> tuple[np.ndarray, int]:
    """Return what the constants leave of values, and how many of them are independent."""
    fit, _, rank, _ = np.linalg.lstsq(constants, values, rcond=None)
    return values - constants @ fit, int(rank)
