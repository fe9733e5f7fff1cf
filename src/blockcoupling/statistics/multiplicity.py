"""P-values adjusted for the number of comparisons."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Correction = Literal["holm", "fdr_bh"]


def adjust(table: pd.DataFrame, by: list[str], correction: Correction = "holm") -> pd.DataFrame:
    """Adjust the p-values of each group for the number of them, as statsmodels does.

    Args:
        table: columns `by`, pearson_p and spearman_p; a missing p is no comparison.
        by: the columns that tell the groups apart.
        correction: `holm` (family-wise error) or `fdr_bh` (false discovery rate).

    Returns:
        The table with pearson_p_adjusted, spearman_p_adjusted, comparisons and correction.

    """
    from statsmodels.stats.multitest import multipletests

    table = table.assign(
        pearson_p_adjusted=np.nan, spearman_p_adjusted=np.nan, comparisons=0, correction=correction
    )
    # multipletests collects garbage at every call, 0.1 s for all that is loaded; frozen, nothing.
    gc.freeze()
    try:
        for _, group in table.groupby(by, sort=False):
            for name in ("pearson_p", "spearman_p"):
                given = group[name].dropna()
                if len(given):
                    adjusted = multipletests(given.to_numpy(float), method=correction)[1]
                    table.loc[given.index, f"{name}_adjusted"] = adjusted
                    table.loc[group.index, "comparisons"] = len(given)
    finally:
        gc.unfreeze()
    return table
