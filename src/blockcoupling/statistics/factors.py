"""What members of a population were given, as numbers that can be held fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "factor."
"""Of the columns of `statistics.points.checkpoint_facts` that hold them."""

_KNOWN = ("blocks", "hidden_size", "seed")
"""Not here: the first two are facts of every model (depth, dimension), and a seed has no size."""

_FACTOR = 5.0


def known_factors(points: pd.DataFrame) -> dict[str, pd.Series]:
    """Return what was given to all of some points, and not the same to all.

    Args:
        points: one row per checkpoint, with columns `factor.KEY` where they are of a population.

    Returns:
        Values by KEY, in the points' order; `log_KEY` (base 10) where all are above 0
        and go over a factor of five or more: those are given, and act, by factors. Words are left
        out.

    """
    columns = {}
    for name in _of(points):
        key = name.removeprefix(PREFIX)
        values = pd.to_numeric(points[name], errors="coerce").astype(float)
        if key in _KNOWN or values.isna().any() or values.nunique() < 2:
            continue
        by_factors = values.min() > 0 and values.max() >= _FACTOR * values.min()
        columns[f"log_{key}" if by_factors else key] = (
            values.map(np.log10) if by_factors else values
        )
    return columns


def _of(points: pd.DataFrame) -> Sequence[str]:
    return [str(name) for name in points if str(name).startswith(PREFIX)]
