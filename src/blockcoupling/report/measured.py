"""What was measured, checkpoint by checkpoint."""

from __future__ import annotations

import pandas as pd

from blockcoupling.report.table import Table
from blockcoupling.statistics.points import CHECKPOINT
from blockcoupling.statistics.predictors import MEASURES, of_kind
from blockcoupling.wording import with_error, words

_SHOWN = [each.name for each in of_kind("coupling", "trajectory")]

_ERRORS = (
    "± one standard error: of measurements, over prompts (their datasets being given); of scores, "
    "as the evaluation reports it."
)


def measurements(points: pd.DataFrame, scores: pd.DataFrame, title: str) -> Table:
    """Return a row for each checkpoint: what was measured, and what it scores."""
    metrics = scores[["score", "metric"]].drop_duplicates().sort_values(["score", "metric"])
    names = [(str(score), str(metric)) for score, metric in metrics.to_numpy()]
    keys = zip(*(scores[name] for name in [*CHECKPOINT, "score", "metric"]), strict=True)
    known = dict(
        zip(keys, zip(scores["value"], scores["standard_error"], strict=True), strict=True)
    )
    rows = []
    for row in points.to_dict("records"):
        cells = [row["model"], row["checkpoint"]]
        cells += [with_error(row[name], row[f"{name}_se"]) for name in _SHOWN]
        for score, metric in names:
            key = (row["model"], row["checkpoint"], score, metric)
            cells.append(with_error(*known.get(key, (None, None))))
        rows.append(cells)
    labels = [MEASURES[name] for name in _SHOWN]
    labels += [words(f"{score} {metric}") for score, metric in names]
    columns = ["model", "checkpoint", *labels]
    return Table(f"{title}; {_ERRORS}", columns, rows, ["model", "checkpoint"], title)
