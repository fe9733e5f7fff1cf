"""The score against coupling, and against what a model is known by without measuring it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from blockcoupling.figures.correlation import describe
from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.groups import grouped
from blockcoupling.figures.style import keys, legend_below, panels, styled
from blockcoupling.statistics.points import CHECKPOINT
from blockcoupling.statistics.predictors import FACTS, LABELS
from blockcoupling.statistics.scores import read_scores
from blockcoupling.wording import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_COLUMNS = 3


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kinds predictors, correlation and score."""
    correlation = catalog.one(kind="correlation").read()
    main = correlation[correlation["headline"] & correlation["subset_kind"].eq("checkpoints")]
    if main.empty:
        raise NothingToShow("No checkpoint of this study has a score.")
    first = main.iloc[0]
    for column in ("score", "metric", "subset"):
        main = main[main[column] == first[column]]
    scores = read_scores(catalog)
    own = scores[(scores["score"] == first["score"]) & (scores["metric"] == first["metric"])]
    table = catalog.one(kind="predictors").read().merge(own, on=CHECKPOINT)
    if str(first["subset"]).startswith("final"):
        table = table[table["final"]]
    return draw(table, main)


@styled
def draw(table: pd.DataFrame, correlation: pd.DataFrame) -> Figure:
    """Draw a panel for coupling and for each fact that is known and differs between points.

    Args:
        table: one row per checkpoint, with its facts and `value`, the score.
        correlation: of each predictor with that score: slope, intercept, r2, pearson_p, n.

    """
    varying = [name for name in FACTS if table[name].dropna().nunique() > 1]
    names = ["coupling", *varying]
    table, look = grouped(table)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure, axes = panels(rows, columns, size=(2.7, 2.3), sharey=True)
    for own in axes.flat[len(names) :]:
        own.set_axis_off()
    for own, name in zip(axes.flat, names, strict=False):
        for member, (colour, marker) in look.items():
            part = table[table["group"] == member]
            own.plot(part[name], part["value"], marker, color=colour, mec="white", mew=0.4, ms=4.5)
        line = correlation[correlation["predictor"] == name]
        if len(line) and np.isfinite(line["slope"].iloc[0]):
            x = np.array([table[name].min(), table[name].max()], float)
            fit = line["intercept"].iloc[0] + line["slope"].iloc[0] * x
            own.plot(x, fit, "--", color="black", lw=1)
            own.set_title(f"n = {line['n'].iloc[0]}\n{describe(line.iloc[0])}")
        own.set_xlabel(LABELS[name])
        own.margins(0.08)
        own.locator_params(axis="x", nbins=4)
    first = correlation.iloc[0]
    for row in axes:
        row[0].set_ylabel(words(f"{first['score']}\n{first['metric']}"))
    legend_below(figure, keys(look, line=False))
    return figure
