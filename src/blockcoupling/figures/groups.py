"""Groups of points: models, or, if there are many, their families or depths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockcoupling.figures.style import Look, looks

if TYPE_CHECKING:
    import pandas as pd

MOST_MODELS = 10
"""Most models in a legend; with more, it cannot be read."""


def grouped(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Look]]:
    """Return the table with a column `group`, and how each group looks, in order.

    Args:
        table: one row per checkpoint: origin (copies of one model share a look), family, depth,
            parameters, model.

    """
    by_size = table.sort_values(["parameters", "model"])
    if by_size["origin"].nunique() <= MOST_MODELS or by_size["family"].isna().any():
        return table.assign(group=table["origin"]), looks(by_size["origin"].unique())
    if by_size["family"].nunique() > 1 or by_size["depth"].isna().any():
        return table.assign(group=table["family"]), looks(sorted(by_size["family"].unique()))
    depth = table["depth"].astype(int)
    look = looks(f"depth {number}" for number in sorted(depth.unique()))
    return table.assign(group=depth.map("depth {}".format)), look
