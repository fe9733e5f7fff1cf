"""What a partial correlation controls for: facts of models, and factors of a population."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from blockcoupling.config.correlate import ControlName, Hold
from blockcoupling.statistics.predictors import covariates_of

PREFIX = "factor."
"""Prefix of the columns of `statistics.points.checkpoint_facts` that hold factors."""

CLASS = " = "
"""Between the name of a covariate and one of its classes, in a column of :func:`covariates`."""

_KNOWN = ("blocks", "hidden_size", "seed")
"""Excluded: the first two are facts of every model (depth, dimension), and a seed has no order."""

_WIDE_RANGE = 5.0
_FEW_VALUES = 5
_POINTS_PER_VALUE = 4

_CONTROLS: Mapping[ControlName, str] = {
    "parameters": "log_parameters",
    "depth": "depth",
    "width": "dimension",
    "tokens": "log_tokens",
}


def known_factors(points: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the numeric factors that every point has, and that vary between them.

    Args:
        points: one row per checkpoint, with columns `factor.KEY` for members of a population.

    Returns:
        Values by KEY, in the points' order; `log_KEY` (base 10) where all are positive and the
        largest is at least five times the smallest.
    """
    columns: dict[str, pd.Series] = {}
    for name in map(str, points):
        if not name.startswith(PREFIX):
            continue
        key = name.removeprefix(PREFIX)
        values = pd.to_numeric(points[name], errors="coerce").astype(float)
        if key in _KNOWN or values.isna().any() or values.nunique() < 2:
            continue
        by_factors = values.min() > 0 and values.max() >= _WIDE_RANGE * values.min()
        columns |= {f"log_{key}": values.map(np.log10)} if by_factors else {key: values}
    return columns


def covariates(
    points: pd.DataFrame, predictor: str, hold: Mapping[ControlName, Hold]
) -> pd.DataFrame:
    """Return the covariates of a predictor: all facts but the predictor itself, and factors.

    A straight line removes a straight relation only. A covariate with three to five values, and at
    least four points for each, therefore has a constant for each value, unless `hold` says `line`.

    Args:
        points: one row per checkpoint.
        predictor: name of the predictor.
        hold: `line` or `classes`, for some of parameters, depth, width, tokens.

    Returns:
        Numeric columns; those of classes are 0 or 1, named `COVARIATE (classes) = VALUE`.
    """
    chosen: dict[str, Hold] = {_CONTROLS[name]: way for name, way in hold.items()}
    held = points[covariates_of(predictor)].assign(**known_factors(points))
    columns: dict[str, pd.Series] = {}
    for name in map(str, held):
        values = held[name].dropna()
        few = 3 <= values.nunique() <= _FEW_VALUES
        enough = len(values) >= _POINTS_PER_VALUE * values.nunique()
        if chosen.get(name, "classes" if few and enough else "line") == "line" or values.empty:
            columns[name] = held[name]
            continue
        for value in sorted(values.unique())[1:]:
            own = held[name].eq(value).astype(float).where(held[name].notna())
            columns[f"{name} (classes){CLASS}{value:g}"] = own
    return pd.DataFrame(columns, index=points.index)
