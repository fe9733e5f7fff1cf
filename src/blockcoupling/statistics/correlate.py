"""Every predictor against every score, in every subset of the points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from blockcoupling.config.correlate import ControlName, Hold, Resample
from blockcoupling.statistics.factors import covariates
from blockcoupling.statistics.multiplicity import adjust
from blockcoupling.statistics.ranking import Ranking, factor_codes, rank
from blockcoupling.statistics.regression import relate
from blockcoupling.statistics.scores import comparisons

COLUMNS = (
    *("predictor", "score", "metric", "higher_is_better", "subset", "subset_kind", "n"),
    *("models", "copies", "units", "resample"),
    *("slope", "intercept", "r2", "r2_low", "r2_high"),
    *("r2_over_coupling", "r2_over_coupling_low", "r2_over_coupling_high"),
    *("pearson", "pearson_low", "pearson_high", "pearson_p", "pearson_p_adjusted"),
    *("spearman", "spearman_p", "spearman_p_adjusted", "comparisons", "correction"),
    *Ranking._fields,
    *("partial", "partial_low", "partial_high", "partial_p", "partial_p_adjusted"),
    *("partial_n", "partial_given", "resamples", "seed", "note"),
)
"""Columns of :func:`correlate`, described in docs/statistics.md."""

DEPENDENT = (
    "models of one family count as independent: if they resemble each other, intervals are too "
    "narrow (correlate.resample: family)"
)


def correlate(
    table: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    checkpoints: Literal["all", "final"] = "all",
    resample: Resample = "model",
    hold: Mapping[ControlName, Hold] | None = None,
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
        resample: what is independent: models, or families (a model without one is its own).
        hold: how covariates are controlled for, as in `statistics.factors.covariates`.
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
        about |= {"copies": int(part["copies"].sum()) - len(part), "resample": resample}
        codes = factor_codes(part)
        families = part["family"].fillna(part["model"])
        for predictor in predictors:
            related = relate(
                part[predictor],
                part["value"],
                families if resample == "family" else part["model"],
                unit=resample,
                covariates=covariates(part, predictor, hold or {}),
                coupling=part["coupling"],
                resamples=resamples,
                seed=seed,
            )
            models = part.loc[part[predictor].notna(), "model"].nunique()
            final = about["subset"] == "final"  # one point per model: factors are its settings
            ranked = rank(part[predictor], part["value"], codes) if final else Ranking()
            related |= {"models": models, **ranked._asdict()}
            rows.append({"predictor": predictor, **about, **related})
            if resample == "model" and 1 < families.nunique() < part["model"].nunique():
                rows[-1]["note"] = "; ".join(filter(None, [related["note"], DEPENDENT]))
    if not rows:
        return pd.DataFrame(columns=list(COLUMNS))
    columns = ("partial_p", "spearman_p", "pearson_p")
    result = adjust(pd.DataFrame(rows), by=["score", "metric", "subset"], columns=columns)
    return result.assign(resamples=resamples, seed=seed)[list(COLUMNS)]
