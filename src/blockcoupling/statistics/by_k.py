"""Coupling against the score for every K and variant: how far results depend on the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from blockcoupling.errors import MeasurementError
from blockcoupling.statistics.origins import merge_copies
from blockcoupling.statistics.points import (
    CHECKPOINT,
    PROMPT,
    at_last_token,
    checkpoint_facts,
    points,
)
from blockcoupling.statistics.regression import relate
from blockcoupling.statistics.subsets import subsets

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


def correlation_by_k(
    catalog: Catalog,
    scores: pd.DataFrame,
    score: str | None,
    metric: str | None,
    *,
    checkpoints: Literal["all", "final"] = "all",
) -> pd.DataFrame:
    """Correlate coupling with one score, for every tabulated K and variant.

    Args:
        catalog: the measurements of a study.
        scores: as :func:`read_scores` returns them.
        score: name of the score; None means the first.
        metric: of that score; None means the first.
        checkpoints: as in `statistics.subsets.subsets`; the first subset is used.

    Returns:
        variant, k, score, metric, subset, and what :func:`relate` returns.
    """
    for column, wanted in (("score", score), ("metric", metric)):
        if len(scores):
            scores = scores[scores[column] == (wanted or scores[column].iloc[0])]
    facts, rows = checkpoint_facts(catalog), []
    last = catalog.search(kind="trajectory").frame(
        columns=[*PROMPT, "token"], filters=[("is_last", "==", True)]
    )
    coupling = at_last_token(
        catalog.search(kind="coupling").frame(), last.rename(columns={"token": "last"})
    )
    values = coupling.groupby(["variant", "k", *PROMPT], as_index=False)[["coupling"]].mean()
    if not np.isfinite(values["coupling"]).all():
        row = values[~np.isfinite(values["coupling"])].iloc[0]
        raise MeasurementError(
            f"{row['model']} {row['checkpoint']}, {row['dataset']} prompt {row['prompt']}: its "
            f"coupling is not finite for K = {row['k']}, variant {row['variant']}"
        )
    for (variant, k), own in values.groupby(["variant", "k"]):
        table = points(own, facts, ["coupling"])
        table = table.merge(scores[[*CHECKPOINT, "score", "metric", "value"]], on=CHECKPOINT)
        if table.empty:
            break
        table = merge_copies(table)
        subset = next(subsets(table, checkpoints=checkpoints))
        part = table[subset.chosen]
        rows.append(
            {
                "variant": variant,
                "k": int(str(k)),
                "score": part["score"].iloc[0],
                "metric": part["metric"].iloc[0],
                "subset": subset.name,
                "models": part["model"].nunique(),
                **relate(part["coupling"], part["value"], part["model"]),
            }
        )
    columns = ["variant", "k", "score", "metric", "subset", "n", "models", "slope", "intercept"]
    columns += ["r2", "r2_low", "r2_high", "pearson", "pearson_low", "pearson_high", "pearson_p"]
    columns += ["spearman", "spearman_p", "note"]
    return pd.DataFrame(rows, columns=columns)
