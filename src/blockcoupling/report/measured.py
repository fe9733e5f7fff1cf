"""What was measured, checkpoint by checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from blockcoupling.report.part import Part
from blockcoupling.report.section import Section
from blockcoupling.report.table import Table
from blockcoupling.statistics.points import CHECKPOINT
from blockcoupling.statistics.predictors import MEASURES, of_kind
from blockcoupling.wording import with_error, words

_SHOWN = [each.name for each in of_kind("coupling", "trajectory")]
_FIRST = [name for name in _SHOWN if name not in ("adjacent_coupling", "equidistance")]
_WHERE = {"text": "at the last token of each prompt", "image": "at one token of each image"}
_ERRORS = (
    "± one standard error: over prompts for measurements (datasets fixed), as evaluated for scores."
)


def section(part: Part) -> Section:
    """Return the measurements of untrained and final checkpoints, then those of all, folded."""
    lead = (
        f"Coupling is minus the mean mis-coupling between different blocks (variant "
        f"{words(part.variant)}, K = {part.k}), {_WHERE[part.modality]}: 0 is perfect coupling, "
        "about −1 is what unrelated blocks have. A line-shape score of 1 is a straight path, an "
        "expodistance of 0 exact exponential growth."
    )
    chosen = part.main[["score", "metric"]].drop_duplicates()
    tables = [measurements(part.ends, part.scores.merge(chosen), _FIRST)]
    title = f"All {len(part.points)} checkpoints, measurements and scores"
    tables.append(measurements(part.points, part.scores, _SHOWN, title))
    return Section("Measurements", lead, tables=tables)


def measurements(
    points: pd.DataFrame, scores: pd.DataFrame, measures: Sequence[str], title: str = ""
) -> Table:
    """Return a row for each checkpoint, with a column for each measure and each metric."""
    metrics = scores[["score", "metric"]].drop_duplicates().sort_values(["score", "metric"])
    names = [(str(score), str(metric)) for score, metric in metrics.to_numpy()]
    known = scores.set_index([*CHECKPOINT, "score", "metric"])[["value", "standard_error"]]
    found = dict(zip(known.index, known.to_numpy().tolist(), strict=True))
    rows = []
    for row in points.to_dict("records"):
        cells = [row["model"], row["checkpoint"]]
        cells += [with_error(row[name], row[f"{name}_se"]) for name in measures]
        for score, metric in names:
            key = (row["model"], row["checkpoint"], score, metric)
            cells.append(with_error(*found.get(key, (None, None))))
        rows.append(cells)
    labels = [MEASURES[name] for name in measures]
    labels += [words(f"{score} {metric}") for score, metric in names]
    columns = ["model", "checkpoint", *labels]
    caption = f"{title or 'Untrained and final checkpoints'}; {_ERRORS}"
    return Table(caption, columns, rows, ["model", "checkpoint"], title)
