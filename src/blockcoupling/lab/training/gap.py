"""The generalization gap: held-out score minus training score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blockcoupling.scores.table import Rows, metric_row
from blockcoupling.scores.text import builtin_source, passage_scores
from blockcoupling.sources.corpus import corpus

if TYPE_CHECKING:
    from blockcoupling.scores.scores import Checkpoint


def gap_scores(checkpoint: Checkpoint, seen: Mapping[str, float], before: Rows) -> Rows:
    """Scores on training text, and their difference from held-out text; see `scores.table`.

    Args:
        checkpoint: Checkpoint of a model trained here.
        seen: `text`, the share of the training text that the model was trained on, and `shuffled`,
            the share of its passages that were shuffled.
        before: Rows that include the score `heldout`.

    Returns:
        Rows of the score `training`, on as many of those passages as are held out, and of `gap`.
    """
    training = passage_scores(checkpoint, "training", corpus().seen(seen["text"], seen["shuffled"]))
    heldout = [row for row in before if row["score"] == "heldout"]
    source = builtin_source()
    return training + [{"score": "gap", "source": source, **row} for row in gap(heldout, training)]


def gap(heldout: Sequence[Mapping[str, Any]], training: Sequence[Mapping[str, Any]]) -> Rows:
    """Held-out minus training score, for each metric.

    The texts are different, so the squares of the standard errors add up. The gap of a loss is
    positive where the model has learned what does not generalize; that of an accuracy is negative.

    Args:
        heldout: Rows of `scores.text.text_scores` on held-out text.
        training: The same metrics on training text.

    Returns:
        One row per metric: metric, value, standard_error, n (texts of both), higher_is_better.
    """
    seen = {row["metric"]: row for row in training}
    return [
        metric_row(
            row["metric"],
            row["value"] - (other := seen[row["metric"]])["value"],
            math.hypot(row["standard_error"], other["standard_error"]),
            row["n"] + other["n"],
            row["higher_is_better"],
        )
        for row in heldout
    ]
