"""The table of evaluations: where the scores under each key of a description come from."""

from typing import Any

Rows = list[dict[str, Any]]
"""Rows of a table of scores."""

EVALUATIONS: dict[str, str] = {
    "recorded": "blockcoupling.scores.scores:recorded_scores",
    "published": "blockcoupling.scores.scores:published_scores",
    "repository": "blockcoupling.scores.scores:repository_scores",
    "images": "blockcoupling.scores.classification:image_scores",
    "heldout": "blockcoupling.scores.text:heldout_scores",
    "harness": "blockcoupling.scores.harness:harness_scores",
}
"""Key → `module:function`, so that reading the table imports nothing.

A function takes a `scores.scores.Checkpoint`, what the description has under the key, and the rows
of the evaluations before it; it returns rows with score, source, metric, value, standard_error, n
and higher_is_better.
"""


NOT_KEPT = ("recorded", "published", "repository")
"""Keys that evaluate nothing: they are read each time."""


def metric_row(
    metric: str, value: float, standard_error: float, n: int, higher_is_better: bool = True
) -> dict[str, Any]:
    """One metric of a score; `n` texts, images or questions were averaged."""
    return {
        "metric": metric,
        "value": value,
        "standard_error": standard_error,
        "n": n,
        "higher_is_better": higher_is_better,
    }
