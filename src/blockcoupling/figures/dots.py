"""Figures with a row for each predictor: what it explains, or its slope, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.layout import grid
from blockcoupling.figures.style import Look, keys, legend_below, looks, styled
from blockcoupling.statistics.predictors import LABELS
from blockcoupling.statistics.within import VERDICTS
from blockcoupling.wording import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_WIDEST = 2.0
"""Standard deviations of the score to either side; longer intervals are cut off."""

_POOLED = "over all models"
_LOOKS = {
    _POOLED: Look("#8c8c8c", "o"),
    "within": Look("#0072B2", "s"),
    "within, different slope from between groups": Look("#E69F00", "D"),
    "within, opposite sign": Look("#D55E00", "v"),
}
_OPPOSITE, _DIFFER, _, _ = VERDICTS
_OF_VERDICT = {_OPPOSITE: "within, opposite sign", _DIFFER: list(_LOOKS)[2]}


class Dots(NamedTuple):
    """The content of a figure.

    Attributes:
        table: a row for each dot: `column` and `row` (its panel), `title` (of the panel),
            `predictor`, `series`, `offset` (of its height), `x`, `low`, `high`.
        look: of each series.
        limits: of x.
    """

    table: pd.DataFrame
    look: Mapping[str, Look]
    limits: tuple[float, float]


def predictors(catalog: Catalog) -> Dots:
    """R² of every predictor: a panel per headline metric, a series per choice of checkpoints."""
    table = catalog.one(kind="correlation").read()
    shown = table[table["headline"] & table["subset_kind"].eq("checkpoints")]
    if shown.empty:
        raise NothingToShow("No checkpoint of this study has a score.")
    look = looks(shown["subset"].drop_duplicates())
    title = (shown["score"] + " " + shown["metric"]).map(words)
    place = shown["subset"].map({name: n - (len(look) - 1) / 2 for n, name in enumerate(look)})
    dots = shown.rename(columns={"r2": "x", "r2_low": "low", "r2_high": "high", "subset": "series"})
    dots = dots.assign(column=title, row="", title=title, offset=-0.22 * place)
    return Dots(dots, look, (-0.03, 1.03))


def within(catalog: Catalog) -> Dots:
    """Slopes pooled and within groups: a row per headline metric, a column per grouping."""
    return slopes(catalog.one(kind="within").read())


def slopes(table: pd.DataFrame) -> Dots:
    """Return the slopes of a table, as `statistics.within.within_groups` returns it."""
    shown = _subset(table[table["headline"]])
    known = shown.groupby("alike", sort=False)["within_low"].transform("count") > 0
    shown = shown[known].assign(row=shown["score"] + " " + shown["metric"], column=shown["alike"])
    title = shown["row"].map(words) + ", " + shown["subset"]
    shown["title"] = title + "\nover all, and within " + shown["alike"]
    ends = shown[["pooled_low", "pooled_high", "within_low", "within_high"]].to_numpy(float)
    reach = min(_WIDEST, 1.05 * float(np.nanmax(np.abs(ends))))
    series = shown["verdict"].map(_OF_VERDICT).fillna("within")
    both = [
        shown.assign(
            **{new: shown[f"{name}{old}"] for new, old in _ENDS.items()},
            series=series if name == "within" else _POOLED,
            offset=-0.17 if name == "within" else 0.17,
        )
        for name in ("pooled", "within")
    ]
    return Dots(pd.concat(both, ignore_index=True), _LOOKS, (-reach, reach))


_ENDS = {"x": "", "low": "_low", "high": "_high"}


def _subset(headline: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one subset: the final checkpoints, if enough of them are similar."""
    if headline.empty:
        raise NothingToShow("No checkpoint of this study has a score.")
    for name in ("final", "trained", "all checkpoints"):
        own = headline[headline["subset"] == name]
        if own["within_low"].notna().any():
            return own
    raise NothingToShow(
        "Too few models have the same depth, width, or family for a slope within groups."
    )


@styled
def draw(content: Dots, *, x: str, width: float) -> Figure:
    """Draw a row of dots for each predictor, hollow without an interval.

    Args:
        content: what to draw.
        x: label of the horizontal axes.
        width: of a panel, in inches.

    """
    table, look, limits = content
    names = list(table["predictor"].drop_duplicates())[::-1]
    cells, parts = zip(*table.groupby(["column", "row"], sort=False), strict=True)
    size = (width, 0.9 + 0.27 * len(names))
    figure, _, places = grid(cells, size=size, sharex=True, sharey=True)
    for place, part in zip(places, parts, strict=True):
        own = place.axes
        for series, dots in part.groupby("series", sort=False):
            heights = dots["predictor"].map(names.index) + dots["offset"]
            _dots(own, dots, heights.to_numpy(float), look[str(series)])
        if limits[0] < -0.1:
            own.axvline(0, color="#555555", lw=0.7, zorder=0.9)
        for y in range(len(names) - 1):
            own.axhline(y + 0.5, color="#eeeeee", lw=0.6)
        own.grid(axis="y", visible=False)
        own.set_title(part["title"].iloc[0])
        if place.lowest:
            own.set_xlabel(x)
        if place.leftmost:
            own.set_yticks(range(len(names)), [LABELS.get(name, name) for name in names])
    places[0].axes.set_xlim(limits)
    places[0].axes.set_ylim(-0.6, len(names) - 0.4)
    legend_below(figure, keys(look, line=False))
    return figure


def _dots(axes: Axes, dots: pd.DataFrame, y: np.ndarray, look: Look) -> None:
    x, low, high = (dots[name].to_numpy(float) for name in ("x", "low", "high"))
    axes.hlines(y, low, high, color=look.color, lw=1)
    sure = np.isfinite(low)
    hollow = {"mfc": "white", "mec": look.color, "mew": 1}
    filled = {"mfc": look.color, "mec": "white", "mew": 0.4}
    for chosen, drawn in ((sure, filled), (~sure, hollow)):
        axes.plot(x[chosen], y[chosen], look.marker, color=look.color, ms=4.5, **drawn)
