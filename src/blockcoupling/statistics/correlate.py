"""Every predictor against every score, in every subset of the points."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from blockcoupling.statistics.factors import known_factors
from blockcoupling.statistics.multiplicity import adjust
from blockcoupling.statistics.predictors import covariates_of
from blockcoupling.statistics.regression import relate
from blockcoupling.statistics.scores import comparisons

COLUMNS = (
    *("predictor", "score", "metric", "higher_is_better", "subset", "subset_kind", "n"),
    *("models", "copies"),
    *("slope", "intercept", "r2", "r2_low", "r2_high"),
    *("pearson", "pearson_p", "pearson_p_adjusted", "spearman", "spearman_p"),
    *("spearman_p_adjusted", "comparisons", "correction"),
    *("partial", "partial_p", "partial_n", "partial_given", "resamples", "seed", "note"),
)
"""Columns of :func:`correlate`, described in docs/statistics.md."""


def correlate(
    table: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    checkpoints: Literal["all", "final"] = "all",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate every predictor with every score, in every subset of the points.

    Args:
        table: one row per checkpoint, as `statistics.points.points` returns it. Those with the same
            weights become one point (`statistics.origins`).
        scores: columns model, checkpoint, score, metric, value, higher_is_better. A score of
            another name is also a predictor (`arc.accuracy`): does one benchmark do as well?
        checkpoints: as in `statistics.subsets.subsets`.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap; recorded in every row.

    Returns:
        One row per predictor × score × metric × subset, with :data:`COLUMNS`. P-values are adjusted
        over the predictors compared on the same points and score. No row where no point has a
        score.

    Raises:
        UserError: a checkpoint has two values of one metric.
    """
    rows: list[dict[str, Any]] = []
    for about, part, predictors in comparisons(table, scores, checkpoints):
        factors = known_factors(part)
        copies = int(part["copies"].sum()) - len(part)
        for predictor in predictors:
            related = relate(
                part[predictor],
                part["value"],
                part["model"],
                covariates=part[covariates_of(predictor)].assign(**factors),
                resamples=resamples,
                seed=seed,
            )
            rows.append({"predictor": predictor, **about, "copies": copies, **related})
    if not rows:
        return pd.DataFrame(columns=list(COLUMNS))
    result = adjust(pd.DataFrame(rows), by=["score", "metric", "subset"])
    return result.assign(resamples=resamples, seed=seed)[list(COLUMNS)]
