"""All statistics of a study, read through its catalog and written as tables."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from blockcoupling.atomic import replacing
from blockcoupling.catalog.modality import of_modality
from blockcoupling.config.choices import Modality
from blockcoupling.errors import UserError
from blockcoupling.statistics.by_k import correlation_by_k
from blockcoupling.statistics.correlate import correlate
from blockcoupling.statistics.multiplicity import Correction
from blockcoupling.statistics.origins import of_one_origin
from blockcoupling.statistics.points import CHECKPOINT, checkpoint_facts, points, prompt_values
from blockcoupling.statistics.prediction import predict
from blockcoupling.statistics.predictors import MEASURES
from blockcoupling.statistics.scores import one_column_each, read_scores
from blockcoupling.statistics.variance import components
from blockcoupling.statistics.within import within_groups

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

logger = logging.getLogger(__name__)


def write_statistics(
    catalog: Catalog,
    out: str | Path,
    *,
    k: int = 10,
    variant: str = "frobenius",
    checkpoints: Literal["all", "final"] = "all",
    score: str | None = None,
    metric: str | None = None,
    score_above: Sequence[float] = (),
    correction: Correction = "holm",
    resamples: int = 2000,
    seed: int = 0,
    modality: Modality | None = None,
) -> dict[str, Path]:
    """Read measurements and scores through the catalog and write the statistics.

    Args:
        catalog: has entries of the kinds model, coupling, trajectory, spectra and score.
        out: the correlation table; the others are written beside it.
        k: how many singular vectors the coupling is of.
        variant: which mis-coupling.
        checkpoints: as in :func:`correlate`.
        score: the score that the study is about, which figures and report show; the rows about
            it have `headline` set. Unset, all have.
        metric: of that score; unset, every one.
        score_above: as in :func:`correlate`, like the rest.
        correction: as there.
        resamples: as there.
        seed: as there.
        modality: only of models that take this; unset, of all.

    Returns:
        The files by kind: `correlation` (:func:`correlate`), `predictors`
        (`statistics.points.points` with one more column per score, `score.metric`),
        `variance` (`statistics.variance.components`, of the final checkpoints),
        `correlation_by_k` (:func:`correlation_by_k`), `prediction` (:func:`predict`) and `within`
        (:func:`within_groups`).

    Raises:
        UserError: the catalog lacks what is asked for.

    """
    if modality is not None:
        catalog = of_modality(catalog, modality)
    values = prompt_values(catalog, k=k, variant=variant)
    table = points(values, checkpoint_facts(catalog))
    scores = read_scores(catalog)
    correlation = correlate(
        table,
        scores,
        checkpoints=checkpoints,
        score_above=score_above,
        correction=correction,
        resamples=resamples,
        seed=seed,
    )
    if correlation.empty:
        logger.warning("no checkpoint has a score: there is nothing to hold measurements against")
    correlation["headline"] = _is_named(correlation, score, metric)
    spread = components(of_one_origin(values, table[table["final"]]), list(MEASURES))
    predictors = table.merge(
        one_column_each(scores), left_on=CHECKPOINT, right_index=True, how="left"
    )

    by_k = correlation_by_k(
        catalog, scores, score, metric, checkpoints=checkpoints, resamples=resamples, seed=seed
    )
    prediction = predict(table, scores, checkpoints=checkpoints, resamples=resamples, seed=seed)
    prediction["headline"] = _is_named(prediction, score, metric)
    within = within_groups(table, scores, checkpoints=checkpoints, correction=correction)
    within["headline"] = _is_named(within, score, metric)
    tables = {
        "correlation": correlation.assign(k=k, variant=variant),
        "predictors": predictors.assign(k=k, variant=variant),
        "variance": spread.assign(k=k, variant=variant),
        "correlation_by_k": by_k,
        "prediction": prediction.assign(k=k, variant=variant),
        "within": within.assign(k=k, variant=variant),
    }
    target = Path(out)
    files = {name: target.with_name(f"{name}.parquet") for name in tables} | {"correlation": target}
    for name, content in tables.items():
        with replacing(files[name]) as fresh:
            content.to_parquet(fresh, index=False, write_page_checksum=True)
    return files


def _is_named(table: pd.DataFrame, score: str | None, metric: str | None) -> pd.Series:
    named = pd.Series(True, index=table.index, dtype=bool)
    for column, wanted in (("score", score), ("metric", metric)):
        named &= True if wanted is None else table[column].eq(wanted)
    if len(table) and not named.any():
        have = (table["score"] + " " + table["metric"]).drop_duplicates()
        asked = " ".join(filter(None, (score, metric)))
        raise UserError(f"no score {asked!r} in the catalog; there are: {', '.join(have)}")
    return named
