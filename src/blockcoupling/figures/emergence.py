"""Measurements and score against training step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.style import band, keys, legend_below, looks, panels, step_axis, styled
from blockcoupling.statistics.predictors import of_kind
from blockcoupling.statistics.scores import read_scores
from blockcoupling.wording import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_MEASURES = {
    "coupling": "coupling −⟨m⟩ (K = {k})",
    **{each.name: each.label for each in of_kind("trajectory")},
}
_MOST_SCORES = 3
_COLUMNS = 3


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kinds predictors, correlation and score."""
    table = catalog.one(kind="predictors").read()
    correlation = catalog.one(kind="correlation").read(columns=["score", "metric", "headline"])
    named = correlation.loc[correlation["headline"], ["score", "metric"]].drop_duplicates()
    scores = read_scores(catalog)
    return draw(table, scores.merge(named.head(_MOST_SCORES), on=["score", "metric"]))


@styled
def draw(table: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Draw each measure, and beside them each metric of the score, against training step.

    Args:
        table: one row per checkpoint: model, checkpoint, step, parameters, measures, their _se, k.
        scores: model, checkpoint, score, metric, value, standard_error.

    """
    table = table.dropna(subset="step").sort_values(["parameters", "model", "step"])
    table = table[table.groupby("model")["step"].transform("nunique") > 1]
    if table.empty:
        raise NothingToShow("No model of this study has several training checkpoints.")
    look = looks(table["model"].unique())
    metrics = list(scores.groupby(["score", "metric"], sort=True))
    # Equidistance where there is room for it: six panels fill two rows.
    measures = dict(list(_MEASURES.items())[: max(3, 2 * _COLUMNS - len(metrics))])
    used = len(measures) + len(metrics)
    figure, axes = panels(-(-used // _COLUMNS), _COLUMNS, size=(2.45, 2.0))
    free = iter(axes.flat)
    for measure, label in measures.items():
        own = next(free)
        for model, line in table.groupby("model", sort=False):
            band(
                own,
                line["step"],
                line[measure],
                line[f"{measure}_se"],
                look[str(model)],
            )
        own.set_ylabel(label.format(k=table["k"].iloc[0]))
    for (score, metric), values in metrics:
        own = next(free)
        line = table[["model", "checkpoint", "step"]].merge(values, on=["model", "checkpoint"])
        for model, part in line.groupby("model", sort=False):
            band(own, part["step"], part["value"], part["standard_error"], look[str(model)])
        own.set_ylabel(words(f"{score}\n{metric}"))
    for n, own in enumerate(axes.flat[:used]):
        step_axis(own, table["step"])
        if n + _COLUMNS >= used:
            epochs = table["checkpoint"].str.startswith("epoch").any()
            own.set_xlabel("epoch" if epochs else "training step")
    for own in free:
        own.set_axis_off()
    legend_below(figure, keys(look))
    return figure
