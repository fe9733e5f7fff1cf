"""P-values adjusted for the number of comparisons."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Correction = Literal["holm", "fdr_bh"]


def adjust(
    table: pd.DataFrame,
    by: list[str],
    correction: Correction = "holm",
    columns: Sequence[str] = ("pearson_p", "spearman_p"),
) -> pd.DataFrame:
    """Adjust the p-values of each group for the number of them, as statsmodels does.

    Args:
        table: columns `by` and `columns`; a missing p is no comparison.
        by: the columns that tell the groups apart.
        correction: `holm` (family-wise error) or `fdr_bh` (false discovery rate).
        columns: those of the p-values, each adjusted by itself.

    Returns:
        The table with each column's `…_adjusted`, comparisons (of the last column) and correction.

    """
    from statsmodels.stats.multitest import multipletests

    adjusted = dict.fromkeys((f"{name}_adjusted" for name in columns), np.nan)
    table = table.assign(**adjusted, comparisons=0, correction=correction)
    # multipletests collects garbage at every call, 0.1 s for all that is loaded; frozen, nothing.
    gc.freeze()
    try:
        for _, group in table.groupby(by, sort=False):
            for name in columns:
                given = group[name].dropna()
                if len(given):
                    tested = multipletests(given.to_numpy(float), method=correction)[1]
                    table.loc[given.index, f"{name}_adjusted"] = tested
                    table.loc[group.index, "comparisons"] = len(given)
    finally:
        gc.unfreeze()
    return table
