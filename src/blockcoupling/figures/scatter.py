"""Figures of the score against other numbers: points of checkpoints, with a fitted line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.groups import grouped
from blockcoupling.figures.layout import grid
from blockcoupling.figures.style import FAINT, Look, keys, legend_below, styled
from blockcoupling.statistics.points import CHECKPOINT
from blockcoupling.statistics.predictors import FACTS, LABELS
from blockcoupling.statistics.scores import read_scores
from blockcoupling.statistics.subsets import subsets
from blockcoupling.wording import interval, number, p_value, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog


class Panel(NamedTuple):
    """The score of some checkpoints against one number.

    Attributes:
        column: of the grid.
        row: of the grid.
        x: label of the number.
        y: label of the score.
        points: model, group, `x`, `value`; optionally their standard errors `x_se` and
            `standard_error`, and then lines join the checkpoints of a model in their order.
        line: row of the correlation table; None if the two were not correlated.
    """

    column: str
    row: str
    x: str
    y: str
    points: pd.DataFrame
    line: pd.Series | None


class Scatter(NamedTuple):
    """The content of a figure: its panels, and how each group of models looks."""

    panels: Sequence[Panel]
    look: Mapping[str, Look]


def correlation(catalog: Catalog) -> Scatter:
    """Coupling against score: a row per headline metric, a column per choice of checkpoints."""
    shown = _headline(catalog)
    shown = shown[shown["predictor"].eq("coupling")]
    table, look = grouped(catalog.one(kind="predictors").read())
    table = table.rename(columns={"coupling_se": "x_se"}).assign(x=table["coupling"])
    scores, panels = read_scores(catalog), []
    for _, line in shown.iterrows():
        values = scores[scores["score"].eq(line["score"]) & scores["metric"].eq(line["metric"])]
        points = table.merge(values, on=CHECKPOINT).sort_values(["model", "step"])
        chosen = {each.name: each.chosen for each in subsets(points)}[line["subset"]]
        y = words(f"{line['score']}\n{line['metric']}")
        x = f"coupling −⟨m⟩ (K = {table['k'].iloc[0]})"
        panels.append(Panel(line["subset"], y, x, y, points[chosen], line))
    return Scatter(panels, look)


def hyperparameters(catalog: Catalog) -> Scatter:
    """The first headline score against coupling, and each fact that differs between checkpoints."""
    main = _headline(catalog)
    first = main.iloc[0]
    for column in ("score", "metric", "subset"):
        main = main[main[column] == first[column]]
    scores = read_scores(catalog)
    own = scores[scores["score"].eq(first["score"]) & scores["metric"].eq(first["metric"])]
    table = catalog.one(kind="predictors").read().merge(own, on=CHECKPOINT)
    if str(first["subset"]).startswith("final"):
        table = table[table["final"]]
    table, look = grouped(table)
    lines = {line["predictor"]: line for _, line in main.iterrows()}
    varying = [name for name in FACTS if table[name].dropna().nunique() > 1]
    y = words(f"{first['score']}\n{first['metric']}")
    panels = [
        Panel(name, "", LABELS[name], y, points.assign(x=table[name]), lines.get(name))
        for name in ("coupling", *varying)
        for points in [table[["model", "group", "value"]]]
    ]
    return Scatter(panels, look)


def _headline(catalog: Catalog) -> pd.DataFrame:
    table = catalog.one(kind="correlation").read()
    shown = table[table["headline"] & table["subset_kind"].eq("checkpoints")]
    if shown.empty:
        raise NothingToShow("No checkpoint of this study has a score.")
    return shown


@styled
def draw(content: Scatter, *, size: tuple[float, float], share: str, named: bool = False) -> Figure:
    """Draw the panels.

    Args:
        content: what to draw.
        size: of a panel, in inches.
        share: `row` or `all`: which panels share the axis of the score.
        named: whether titles name the choice of checkpoints.

    """
    cells = [(each.column, each.row) for each in content.panels]
    sharey = True if share == "all" else share
    figure, _, places = grid(cells, size=size, widest=3, sharey=sharey)
    for place, panel in zip(places, content.panels, strict=True):
        own, line = place.axes, panel.line
        _points(own, panel.points, content.look)
        if line is not None and np.isfinite(line["slope"]):
            x = np.array([panel.points["x"].min(), panel.points["x"].max()], float)
            own.plot(x, line["intercept"] + line["slope"] * x, "--", color="black", lw=1, zorder=2)
        if line is not None and (named or np.isfinite(line["slope"])):
            subset = f"{line['subset']}, " if named else ""
            own.set_title(f"{subset}n = {line['n']}\n{describe(line)}")
        own.margins(0.08)
        own.locator_params(axis="x", nbins=4)
        if place.lowest:
            own.set_xlabel(panel.x)
        if place.leftmost:
            own.set_ylabel(panel.y)
    legend_below(figure, keys(content.look, line=False))
    return figure


def _points(axes: Axes, points: pd.DataFrame, look: Mapping[str, Look]) -> None:
    errors = "x_se" in points
    if errors:
        for _, own in points.groupby("model"):
            axes.plot(own["x"], own["value"], color=FAINT, lw=0.6, alpha=0.7, zorder=1)
    for name, (colour, marker) in look.items():
        own = points[points["group"] == name]
        axes.errorbar(
            own["x"],
            own["value"],
            xerr=own["x_se"].astype(float) if errors else None,
            yerr=own["standard_error"].astype(float) if errors else None,
            fmt=marker,
            color=colour,
            mec="white",
            mew=0.4,
            ms=4.5,
            elinewidth=0.7,
            zorder=3,
        )


def describe(line: pd.Series) -> str:
    """Return R², its interval and p as text."""
    if not np.isfinite(line["r2"]):
        return "no correlation"
    text = f"R² = {number(line['r2'])}"
    if np.isfinite(line["r2_low"]):
        text += f" {interval(line['r2_low'], line['r2_high'])}"
    if not np.isfinite(line["pearson_p"]):
        return f"{text}, no p-value"
    p = p_value(line["pearson_p"])
    return f"{text}, p {p}" if p.startswith("<") else f"{text}, p = {p}"
