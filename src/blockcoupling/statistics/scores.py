"""Scores of a catalog, and the points that have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd

from blockcoupling.errors import UserError
from blockcoupling.statistics.origins import merge_copies
from blockcoupling.statistics.points import CHECKPOINT
from blockcoupling.statistics.predictors import FACTS, MEASURES
from blockcoupling.statistics.subsets import subsets

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

METRIC = ["score", "metric"]


def read_scores(catalog: Catalog) -> pd.DataFrame:
    """Return all scores of a catalog: model, checkpoint, score, metric, value, ….

    Columns: standard_error (missing where unknown), n, higher_is_better, source. A study without
    scores has no rows.
    """
    found = catalog.search(kind="score")
    if not len(found):
        names = [*CHECKPOINT, *METRIC, "value", "standard_error", "n"]
        return pd.DataFrame(columns=[*names, "higher_is_better", "source"])
    return found.frame()


def one_column_each(scores: pd.DataFrame) -> pd.DataFrame:
    """Spread scores over columns `score.metric`, one row per (model, checkpoint)."""
    if scores.empty:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=CHECKPOINT))
    named = scores.assign(column=scores["score"] + "." + scores["metric"])
    return named.pivot_table(index=CHECKPOINT, columns="column", values="value")


class Comparison(NamedTuple):
    """One score in one subset of the points, and the predictors to compare with it."""

    about: dict[str, Any]
    """score, metric, higher_is_better, subset, subset_kind."""
    points: pd.DataFrame
    """The subset, copies merged: `value` is the score, other scores are columns `score.metric`."""
    predictors: list[str]
    """Columns of the points: measures, facts and scores of another name that have a value."""


def comparisons(
    table: pd.DataFrame, scores: pd.DataFrame, checkpoints: Literal["all", "final"] = "all"
) -> Iterator[Comparison]:
    """Yield every subset of the points of every score, in the order of the scores' names.

    Args:
        table: one row per checkpoint, as `statistics.points.points` returns it.
        scores: columns model, checkpoint, score, metric, value, higher_is_better.
        checkpoints: as in `statistics.subsets.subsets`.

    Raises:
        UserError: a checkpoint has two values of one metric.
    """
    twice = scores[scores.duplicated([*CHECKPOINT, *METRIC])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"{row['model']} {row['checkpoint']} has two values of {row['score']} {row['metric']}"
        )
    wide = one_column_each(scores)
    names = scores[METRIC].drop_duplicates().sort_values(METRIC).to_numpy()
    for (score, metric), own in scores.groupby(METRIC, sort=True):
        found = table.merge(own[[*CHECKPOINT, "value"]], on=CHECKPOINT)
        if found.empty:
            continue
        found = merge_copies(found.merge(wide, left_on=CHECKPOINT, right_index=True, how="left"))
        others = [f"{each}.{name}" for each, name in names if each != score]
        higher = bool(own["higher_is_better"].iloc[0])
        for subset in subsets(found, checkpoints=checkpoints, higher_is_better=higher):
            part = found[subset.chosen]
            about = {"score": score, "metric": metric, "higher_is_better": higher}
            about |= {"subset": subset.name, "subset_kind": subset.kind}
            known = [n for n in (*MEASURES, *FACTS, *others) if part[n].notna().any()]
            yield Comparison(about, part, known)
