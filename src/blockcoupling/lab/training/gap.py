"""The generalization gap: how much worse a model does on held-out text than on what it has seen."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def gap(
    heldout: Sequence[Mapping[str, Any]], training: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Held-out minus training, of each metric.

    The two are of different texts, so that the squares of their standard errors add up. Of a loss
    the gap is positive where the model has learned what does not carry over; of an accuracy it is
    negative there.

    Args:
        heldout: Rows of `scores.text_scores` on text held out.
        training: The same metrics on text that was trained on.

    Returns:
        A row a metric: metric, value, standard_error, n (texts on both sides), higher_is_better.
    """
    seen = {row["metric"]: row for row in training}
    rows = []
    for row in heldout:
        other = seen[row["metric"]]
        rows.append(
            {
                "metric": row["metric"],
                "value": row["value"] - other["value"],
                "standard_error": math.hypot(row["standard_error"], other["standard_error"]),
                "n": row["n"] + other["n"],
                "higher_is_better": row["higher_is_better"],
            }
        )
    return rows
