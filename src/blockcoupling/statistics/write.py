"""All statistics of a study, read through its catalog and written as tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from blockcoupling.catalog.modality import of_modality
from blockcoupling.config.choices import Modality
from blockcoupling.config.correlate import ControlName, Hold, Resample
from blockcoupling.errors import UserError
from blockcoupling.statistics.by_k import correlation_by_k
from blockcoupling.statistics.correlate import correlate
from blockcoupling.statistics.origins import of_one_origin
from blockcoupling.statistics.points import CHECKPOINT, checkpoint_facts, points, prompt_values
from blockcoupling.statistics.prediction import predict
from blockcoupling.statistics.predictors import MEASURES
from blockcoupling.statistics.scores import one_column_each, read_scores
from blockcoupling.statistics.tables import write_tables
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
    resample: Resample = "model",
    hold: Mapping[ControlName, Hold] | None = None,
    score: str | None = None,
    metric: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    modality: Modality | None = None,
) -> dict[str, Path]:
    """Read measurements and scores through the catalog and write the statistics.

    Args:
        catalog: entries of the kinds model, coupling, trajectory, spectra and score.
        out: the correlation table; the others are written to the same folder.
        k: number of singular vectors of the coupling.
        variant: of mis-coupling.
        checkpoints: as in :func:`correlate`.
        resample: as in :func:`correlate`.
        hold: as in :func:`correlate`.
        score: the score that the study is about, shown by figures and report. Rows about it have
            `headline` set; without it all rows have.
        metric: of that score; None means all of them.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        modality: only models that take this input; None means all models.

    Returns:
        The files by kind: `correlation` (:func:`correlate`), `predictors`
        (`statistics.points.points` with one more column per score, `score.metric`),
        `variance` (`statistics.variance.components`, of the final checkpoints),
        `correlation_by_k` (:func:`correlation_by_k`), `prediction` (:func:`predict`) and `within`
        (:func:`within_groups`).

    Raises:
        UserError: the catalog lacks the given K, variant or score.
    """
    if modality is not None:
        catalog = of_modality(catalog, modality)
    values = prompt_values(catalog, k=k, variant=variant)
    table = points(values, checkpoint_facts(catalog))
    scores = read_scores(catalog)
    sampling = {"resamples": resamples, "seed": seed}
    tables = {
        "correlation": correlate(
            table, scores, checkpoints=checkpoints, resample=resample, hold=hold, **sampling
        ),
        "predictors": table.merge(
            one_column_each(scores), left_on=CHECKPOINT, right_index=True, how="left"
        ),
        "variance": components(of_one_origin(values, table[table["final"]]), list(MEASURES)),
        "prediction": predict(table, scores, checkpoints=checkpoints, **sampling),
        "within": within_groups(table, scores, checkpoints=checkpoints),
    }
    if tables["correlation"].empty:
        logger.warning("no checkpoint has a score: nothing to correlate measurements with")
    for name in ("correlation", "prediction", "within"):
        tables[name]["headline"] = _is_named(tables[name], score, metric)
    tables = {name: each.assign(k=k, variant=variant) for name, each in tables.items()}
    tables["correlation_by_k"] = correlation_by_k(
        catalog, scores, score, metric, checkpoints=checkpoints
    )
    return write_tables(tables, out)


def _is_named(table: pd.DataFrame, score: str | None, metric: str | None) -> pd.Series:
    named = pd.Series(True, index=table.index, dtype=bool)
    for column, wanted in (("score", score), ("metric", metric)):
        named &= True if wanted is None else table[column].eq(wanted)
    if len(table) and not named.any():
        have = (table["score"] + " " + table["metric"]).drop_duplicates()
        asked = " ".join(filter(None, (score, metric)))
        raise UserError(f"no score {asked!r} in the catalog; there are: {', '.join(have)}")
    return named
