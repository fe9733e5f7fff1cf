"""Coupling against score, with the fitted line and how sure one can be of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.groups import grouped
from blockcoupling.figures.style import FAINT, Look, keys, legend_below, panels, styled
from blockcoupling.statistics.points import CHECKPOINT
from blockcoupling.statistics.scores import read_scores
from blockcoupling.statistics.subsets import subsets
from blockcoupling.wording import interval, number, p_value, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kinds predictors, correlation and score."""
    return draw(
        catalog.one(kind="predictors").read(),
        read_scores(catalog),
        catalog.one(kind="correlation").read(),
    )


@styled
def draw(table: pd.DataFrame, scores: pd.DataFrame, correlation: pd.DataFrame) -> Figure:
    """Draw a row per headline metric and a column per choice of checkpoints.

    Args:
        table: one row per checkpoint, as `statistics.points.points` returns it, with k.
        scores: model, checkpoint, score, metric, value, standard_error, higher_is_better.
        correlation: as `statistics.correlate.correlate` returns it, with headline.

    """
    shown = correlation[
        correlation["headline"]
        & correlation["predictor"].eq("coupling")
        & correlation["subset_kind"].eq("checkpoints")
    ]
    if shown.empty:
        raise NothingToShow("No checkpoint of this study has a score.")
    metrics = shown[["score", "metric"]].drop_duplicates().to_numpy().tolist()
    names = shown["subset"].drop_duplicates().tolist()
    table, look = grouped(table)
    figure, axes = panels(len(metrics), len(names), size=(2.7, 2.4), sharey="row")
    for row, (score, metric) in enumerate(metrics):
        values = scores[scores["score"].eq(score) & scores["metric"].eq(metric)]
        points = table.merge(values, on=CHECKPOINT).sort_values(["model", "step"])
        chosen = {s.name: s.chosen for s in subsets(points)}
        for column, name in enumerate(names):
            own = axes[row, column]
            line = shown[
                shown["score"].eq(score) & shown["metric"].eq(metric) & shown["subset"].eq(name)
            ].iloc[0]
            _panel(own, points[chosen[name]], line, look)
            if row == len(metrics) - 1:
                own.set_xlabel(f"coupling −⟨m⟩ (K = {table['k'].iloc[0]})")
        axes[row, 0].set_ylabel(words(f"{score}\n{metric}"))
    legend_below(figure, keys(look, line=False))
    return figure


def _panel(axes: Axes, points: pd.DataFrame, line: pd.Series, look: dict[str, Look]) -> None:
    for _, own in points.groupby("model"):
        # Training goes along this line; the points of one model belong together.
        axes.plot(own["coupling"], own["value"], color=FAINT, lw=0.6, alpha=0.7, zorder=1)
    for name, (colour, marker) in look.items():
        own = points[points["group"] == name]
        axes.errorbar(
            own["coupling"],
            own["value"],
            xerr=own["coupling_se"].astype(float),
            yerr=own["standard_error"].astype(float),
            fmt=marker,
            color=colour,
            mec="white",
            mew=0.4,
            ms=4.5,
            elinewidth=0.7,
            zorder=3,
        )
    if np.isfinite(line["slope"]):
        x = np.array([points["coupling"].min(), points["coupling"].max()])
        axes.plot(x, line["intercept"] + line["slope"] * x, color="black", lw=1, ls="--", zorder=2)
    axes.margins(0.08)
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(f"{line['subset']}, n = {line['n']}\n{describe(line)}")


def describe(line: pd.Series) -> str:
    """Say R², its interval and p in one line of text."""
    if not np.isfinite(line["r2"]):
        return "no correlation"
    text = f"R² = {number(line['r2'])}"
    if np.isfinite(line["r2_low"]):
        text += f" {interval(line['r2_low'], line['r2_high'])}"
    if not np.isfinite(line["pearson_p"]):
        return f"{text}, no p-value"
    p = p_value(line["pearson_p"])
    return f"{text}, p {p}" if p.startswith("<") else f"{text}, p = {p}"
