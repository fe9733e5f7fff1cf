"""Scores as the catalog has them, and as columns beside the points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.statistics.points import CHECKPOINT

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


def read_scores(catalog: Catalog) -> pd.DataFrame:
    """Return all scores of a catalog: model, checkpoint, score, metric, value, ….

    Columns: standard_error (missing where unknown), n, higher_is_better, source. A study without
    scores has no rows.
    """
    found = catalog.search(kind="score")
    if not len(found):
        names = [*CHECKPOINT, "score", "metric", "value", "standard_error", "n"]
        return pd.DataFrame(columns=[*names, "higher_is_better", "source"])
    return found.frame()


def one_column_each(scores: pd.DataFrame) -> pd.DataFrame:
    """Spread scores over columns `score.metric`, one row per (model, checkpoint)."""
    if scores.empty:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=CHECKPOINT))
    named = scores.assign(column=scores["score"] + "." + scores["metric"])
    return named.pivot_table(index=CHECKPOINT, columns="column", values="value")
