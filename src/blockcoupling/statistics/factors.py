"""Factors of a population as numeric covariates."""

from __future__ import annotations

import numpy as np
import pandas as pd

PREFIX = "factor."
"""Of the columns of `statistics.points.checkpoint_facts` that hold factors."""

_KNOWN = ("blocks", "hidden_size", "seed")
"""Excluded: the first two are facts of every model (depth, dimension), and a seed has no order."""

_WIDE_RANGE = 5.0


def known_factors(points: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the numeric factors that every point has, and that vary between them.

    Args:
        points: one row per checkpoint, with columns `factor.KEY` for members of a population.

    Returns:
        Values by KEY, in the points' order; `log_KEY` (base 10) where all are positive and the
        largest is at least five times the smallest.
    """
    columns = {}
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
