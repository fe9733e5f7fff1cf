"""P-values adjusted for the number of comparisons."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def adjust(
    table: pd.DataFrame, by: list[str], columns: Sequence[str] = ("pearson_p", "spearman_p")
) -> pd.DataFrame:
    """Adjust the p-values of each group by Holm's method, which controls the family-wise error.

    Args:
        table: columns `by` and `columns`; a missing p is not a comparison.
        by: columns that identify a group.
        columns: columns of p-values, each adjusted separately.

    Returns:
        The table with each column's `…_adjusted`, `comparisons` (of the last column) and
        `correction`.
    """
    from statsmodels.stats.multitest import multipletests

    adjusted = dict.fromkeys((f"{name}_adjusted" for name in columns), np.nan)
    table = table.assign(**adjusted, comparisons=0, correction="holm")
    # multipletests collects garbage at every call, 0.1 s with all modules loaded; not when frozen.
    gc.freeze()
    try:
        for _, group in table.groupby(by, sort=False):
            for name in columns:
                given = group[name].dropna()
                if len(given):
                    tested = multipletests(given.to_numpy(float), method="holm")[1]
                    table.loc[given.index, f"{name}_adjusted"] = tested
                    table.loc[group.index, "comparisons"] = len(given)
    finally:
        gc.unfreeze()
    return table
