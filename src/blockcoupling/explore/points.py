"""Payload of the checkpoints as points: predictors, scores, and the study's correlations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy import stats

from blockcoupling.statistics.points import CHECKPOINT, checkpoint_facts, prompt_values
from blockcoupling.statistics.points import points as points_of
from blockcoupling.statistics.predictors import LABELS
from blockcoupling.statistics.scores import one_column_each, read_scores

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_FACTS = [*CHECKPOINT, "family", "origin", "step", "parameters", "untrained", "final"]
_LINE = ["predictor", "score", "metric", "subset", "n", "r2", "r2_low", "r2_high", "pearson_p"]
_DEGREES = 400


def points(catalog: Catalog) -> dict[str, Any]:
    """Return one row per measured checkpoint.

    Returns:
        `points`: facts, predictors with their standard errors, and scores as columns
        `score.metric`; `predictors`: name → label of those that have values; `scores`: name →
        whether higher is better; `k`, `variant`; `lines`: the study's correlations over all or the
        final checkpoints; `t`: 0.975 quantiles of Student's t by degrees of freedom, from 1.

    Raises:
        UserError: a table cannot be read.
    """
    kinds = {str(each.metadata["kind"]) for each in catalog.entries.values()}
    if "predictors" in kinds:
        tables = [catalog[name].read() for name in catalog.search(kind="predictors")]
        table = pd.concat(tables, ignore_index=True)
    else:
        table = _calculated(catalog)
    scores = read_scores(catalog)
    wide = one_column_each(scores)
    higher = scores.assign(name=scores["score"] + "." + scores["metric"])
    predictors = [name for name in LABELS if name in table and table[name].notna().any()]
    columns = [
        *(name for name in _FACTS if name in table),
        *(name for each in predictors for name in (each, f"{each}_se") if name in table),
    ]
    shown = table[list(dict.fromkeys(columns))].merge(
        wide, left_on=CHECKPOINT, right_index=True, how="left"
    )
    lines = pd.DataFrame(columns=_LINE)
    if "correlation" in kinds:
        found = catalog.search(kind="correlation").frame()
        lines = found.loc[found["subset_kind"].eq("checkpoints"), _LINE]
    return {
        "points": shown,
        "predictors": {name: LABELS[name] for name in predictors},
        "scores": dict(zip(higher["name"], higher["higher_is_better"].astype(bool), strict=True)),
        "k": int(table["k"].iloc[0]) if len(table) else None,
        "variant": str(table["variant"].iloc[0]) if len(table) else None,
        "lines": lines,
        "t": stats.t.ppf(0.975, range(1, _DEGREES)).tolist(),
    }


def _calculated(catalog: Catalog) -> pd.DataFrame:
    """Return the points of a catalog without statistics, for its first variant and largest K."""
    kinds = {str(each.metadata["kind"]) for each in catalog.entries.values()}
    if not {"coupling", "trajectory", "spectra", "model"} <= kinds:
        return pd.DataFrame(columns=[*_FACTS, "k", "variant"])
    chosen = catalog.search(kind="coupling")
    first = chosen[next(iter(chosen))].read(columns=["variant", "k"])
    k, variant = int(first["k"].max()), str(first["variant"].iloc[0])
    values = prompt_values(catalog, k=k, variant=variant)
    return points_of(values, checkpoint_facts(catalog)).assign(k=k, variant=variant)
