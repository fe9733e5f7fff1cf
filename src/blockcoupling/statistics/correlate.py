"""Every predictor against every score, in every subset of the points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from blockcoupling.statistics.factors import known_factors
from blockcoupling.statistics.multiplicity import Correction, adjust
from blockcoupling.statistics.predictors import FACTS, MEASURES, held_fixed
from blockcoupling.statistics.regression import relate
from blockcoupling.statistics.scores import scored
from blockcoupling.statistics.subsets import SIZE_CLASSES, subsets

COLUMNS = (
    *("predictor", "score", "metric", "higher_is_better", "subset", "subset_kind", "n"),
    *("models", "copies"),
    *("slope", "intercept", "r2", "r2_low", "r2_high"),
    *("pearson", "pearson_p", "pearson_p_adjusted", "spearman", "spearman_p"),
    *("spearman_p_adjusted", "comparisons", "correction"),
    *("partial", "partial_p", "partial_n", "partial_given", "resamples", "seed", "note"),
)
"""Of the table that :func:`correlate` returns; docs/statistics.md says what they hold."""


def correlate(
    table: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    checkpoints: Literal["all", "final"] = "all",
    score_above: Sequence[float] = (),
    size_classes: Mapping[str, tuple[float, float]] = SIZE_CLASSES,
    correction: Correction = "holm",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold every predictor against every score, in every subset of the points.

    Args:
        table: one row per checkpoint, as `statistics.points.points` returns it. Those with the same
            weights are made one point (`statistics.origins`).
        scores: columns model, checkpoint, score, metric, value, higher_is_better. A score of
            another name is also a predictor (`arc.accuracy`): does one benchmark do as well?
        checkpoints: see :func:`subsets`.
        score_above: see :func:`subsets`.
        size_classes: see :func:`subsets`.
        correction: for multiple comparisons, Holm or Benjamini-Hochberg, over the predictors that
            are compared on the same points and the same score (their number is `comparisons`).
        resamples: of the bootstrap.
        seed: of the bootstrap; recorded in every row.

    Returns:
        One row per predictor × score × metric × subset, with :data:`COLUMNS`; no row when none of
        the points has a score.

    Raises:
        UserError: a checkpoint has two values of one metric.

    """
    rows: list[dict[str, Any]] = []
    for score, metric, higher, own, others in scored(table, scores):
        for subset in subsets(
            own,
            checkpoints=checkpoints,
            higher_is_better=higher,
            score_above=score_above,
            size_classes=size_classes,
        ):
            part = own[subset.chosen]
            given = known_factors(part)
            for predictor in [*MEASURES, *FACTS, *others]:
                if part[predictor].isna().all():
                    continue
                related = relate(
                    part[predictor],
                    part["value"],
                    part["model"],
                    covariates=part[held_fixed(predictor)].assign(**given),
                    resamples=resamples,
                    seed=seed,
                )
                about: dict[str, Any] = {"predictor": predictor, "score": score, "metric": metric}
                about |= {"higher_is_better": higher}
                about |= {"subset": subset.name, "subset_kind": subset.kind}
                about |= {"copies": int(part["copies"].sum()) - len(part)}
                rows.append({**about, **related})
    if not rows:
        return pd.DataFrame(columns=list(COLUMNS))
    result = pd.DataFrame(rows)
    result = adjust(result, by=["score", "metric", "subset"], correction=correction)
    return result.assign(resamples=resamples, seed=seed)[list(COLUMNS)]
