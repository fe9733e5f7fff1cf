"""P-values adjusted for the number of comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Correction = Literal["holm", "fdr_bh"]


def adjust(table: pd.DataFrame, by: list[str], correction: Correction = "holm") -> pd.DataFrame:
    """Adjust the p-values of each group for the number of them.

    Args:
        table: columns `by`, pearson_p and spearman_p; a missing p is no comparison.
        by: the columns that tell the groups apart.
        correction: `holm` (family-wise error) or `fdr_bh` (false discovery rate).

    Returns:
        The table with pearson_p_adjusted, spearman_p_adjusted, comparisons and correction.

    """
    table = table.assign(
        pearson_p_adjusted=np.nan, spearman_p_adjusted=np.nan, comparisons=0, correction=correction
    )
    for _, group in table.groupby(by, sort=False):
        for name in ("pearson_p", "spearman_p"):
            given = group[name].dropna()
            if len(given):
                adjusted = _adjusted(given.to_numpy(float), correction)
                table.loc[given.index, f"{name}_adjusted"] = adjusted
                table.loc[group.index, "comparisons"] = len(given)
    return table


def _adjusted(p: NDArray[np.float64], correction: Correction) -> NDArray[np.float64]:
    # statsmodels has Holm's too, but collects garbage at every call, which takes 0.1 s.
    if correction == "fdr_bh":
        from scipy.stats import false_discovery_control

        return np.asarray(false_discovery_control(p))
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return stepped[np.argsort(order)]
