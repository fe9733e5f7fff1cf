"""Scores as the catalog has them, and as columns beside the points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from blockcoupling.errors import UserError
from blockcoupling.statistics.origins import merge_copies
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


class Scored(NamedTuple):
    """The points that have one score: their `value`, beside all other scores, copies merged."""

    score: str
    metric: str
    higher_is_better: bool
    points: pd.DataFrame
    others: list[str]
    """Columns of the scores of another name."""


def scored(table: pd.DataFrame, scores: pd.DataFrame) -> Iterator[Scored]:
    """Yield the points of each score that any of them has, in the order of the scores' names.

    Args:
        table: one row per checkpoint, as `statistics.points.points` returns it.
        scores: columns model, checkpoint, score, metric, value, higher_is_better.

    Raises:
        UserError: a checkpoint has two values of one metric.

    """
    metrics = ["score", "metric"]
    twice = scores[scores.duplicated([*CHECKPOINT, *metrics])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"{row['model']} {row['checkpoint']} has two values of {row['score']} {row['metric']}"
        )
    wide = one_column_each(scores)
    names = scores[metrics].drop_duplicates().sort_values(metrics).to_numpy()
    for (score, metric), own in scores.groupby(metrics, sort=True):
        found = table.merge(own[[*CHECKPOINT, "value"]], on=CHECKPOINT)
        if len(found):
            found = found.merge(wide, left_on=CHECKPOINT, right_index=True, how="left")
            others = [f"{each}.{name}" for each, name in names if each != score]
            higher = bool(own["higher_is_better"].iloc[0])
            yield Scored(str(score), str(metric), higher, merge_copies(found), others)
