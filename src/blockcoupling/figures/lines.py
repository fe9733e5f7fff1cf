"""The panel function of line figures: lines with bands, intervals, boxes or fits, in a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from blockcoupling.figures.layout import grid
from blockcoupling.figures.style import (
    FAINT,
    SEQUENTIAL,
    Look,
    band,
    counted,
    depth_bar,
    keys,
    legend_below,
    log_heights,
    looks,
    model_axis,
    scale,
    step_axis,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scale = Literal["linear", "log", "count", "steps", "k", "names"]
Looks = Mapping[Any, Look]

_APART = ("bars", "joined bars", "boxes")

STYLES = {"untrained": ":", "final checkpoint": "-"}


@styled
def draw(
    table: pd.DataFrame,
    *,
    x: str,
    y: str = "",
    x_scale: Scale = "linear",
    log: bool = False,
    share: Literal["all", "row", "none"] = "none",
    mark: Literal["band", "bars", "joined bars", "boxes", "fit", "plain"] = "band",
    grows: bool = False,
    key: str = "{}",
    bar: str = "",
    size: tuple[float, float],
    widest: int = 4,
) -> Figure:
    """Draw a panel for each column and row of a grid, and in it a line for each name.

    Args:
        table: a row for each point: `column` and `row` (its panel), `title` (of the panel), `line`
            (its name; a category gives the order), `x`, `y`; `se`, or `low` and `high`, for what
            surrounds it; optionally `label` (y label of the panel, where {y} is the figure's) and
            `style` (one of :data:`STYLES`). Its `attrs` fill the braces in labels; `limits` in
            them are those of y.
        x: label of the horizontal axes.
        y: label of the vertical axes, unless panels have their own.
        x_scale: `count` for blocks and distances, `steps` for training, `k` for numbers of singular
            vectors, `names` for models.
        log: whether y is logarithmic.
        share: which panels share their y axis.
        mark: how a line is drawn.
        grows: whether names are ordered, with colours from dark to light.
        key: what the legend says of a name.
        bar: label of a colour bar in place of the legend; names are then numbers from 0 to 1.
        size: of a panel, in inches.
        widest: number of panels side by side.

    """
    names = list(table["x"].unique()) if x_scale == "names" else []
    if names:
        table = table.assign(x=table["x"].map(names.index))
        size = (max(size[0], 0.55 * len(names) + 1.4), size[1])
    cells, parts = zip(*table.groupby(["column", "row"], sort=False), strict=True)
    sharing: dict[str, Any] = {"all": True, "row": "row", "none": False}
    figure, axes, places = grid(
        cells, size=size, widest=widest, sharey=sharing[share], sharex=bool(names)
    )
    look = _looks(table["line"], grows, bool(bar))
    several = _several_labels(table)
    for place, part in zip(places, parts, strict=True):
        own, first = place.axes, part.iloc[0]
        apart = _side_by_side(part, look, bool(names)) if mark in _APART else part
        _MARKS[mark](own, apart, look)
        own.set_title(first["title"])
        if place.lowest:
            own.set_xlabel(x.format_map(table.attrs))
        if place.leftmost or first["row"] in several:
            own.set_ylabel(first.get("label", "{y}").replace("{y}", y.format_map(table.attrs)))
        _scale_x(own, part["x"], x_scale)
        if log:
            log_heights(own, table["y"] if share == "all" else table["y"][_row_of(table, first)])
        if "limits" in table.attrs:
            own.set_ylim(table.attrs["limits"])
        if names and place.lowest:
            model_axis(own, names)
    if names:
        places[0].axes.set_xlim(-0.6, len(names) - 0.4)
    if bar:
        depth_bar(figure, axes, bar)
    else:
        legend_below(figure, _legend(table, look, key, line=not names))
    return figure


def _several_labels(table: pd.DataFrame) -> set[Any]:
    """Return the rows of the grid whose panels differ in their y labels."""
    if "label" not in table:
        return set()
    labels = table.groupby("row")["label"].nunique()
    return set(labels.index[labels > 1])


def _row_of(table: pd.DataFrame, point: pd.Series) -> pd.Series:
    return table["row"] == point["row"]


def _looks(names: pd.Series, grows: bool, along_depth: bool) -> dict[Any, Look]:
    """Return how each line looks, in the order of its category or else of appearance."""
    listed = list(names.cat.categories if hasattr(names, "cat") else names.unique())
    if along_depth:
        return {name: Look(mpl.colormaps[SEQUENTIAL](name), "") for name in listed}
    if grows:
        return {n: Look(c, "o") for n, c in zip(listed, scale(len(listed)), strict=True)}
    return looks(listed)


def _legend(table: pd.DataFrame, look: Looks, key: str, *, line: bool) -> list[Any]:
    present = set(table["line"])
    styles = set(table["style"]) if "style" in table else set()
    shown = {key.format(name): each for name, each in look.items() if name in present}
    return keys(shown, line=line) + [
        Line2D([], [], color=FAINT, ls=style, label=state)
        for state, style in STYLES.items()
        if state in styles
    ]


def _scale_x(axes: Axes, values: pd.Series, kind: Scale) -> None:
    if kind == "count":
        axes.set_xticks(counted(int(values.max())))
    elif kind == "steps":
        step_axis(axes, values)
    elif kind == "log":
        axes.set_xscale("log")
    elif kind == "k":
        ticks = sorted(values.unique())
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())


def _of_lines(part: pd.DataFrame) -> Any:
    return part.groupby("line", sort=False, observed=True)


def _side_by_side(part: pd.DataFrame, look: Looks, along_names: bool) -> pd.DataFrame:
    """Move points of different lines apart; along names a fixed way, along K a fixed factor."""
    middle = (len(look) - 1) / 2
    place = part["line"].map({name: n - middle for n, name in enumerate(look)}).astype(float)
    if along_names:
        return part.assign(x=part["x"] + 0.4 * place / max(1, len(look) - 1))
    return part.assign(x=part["x"] * 1.03**place)


def _band(axes: Axes, part: pd.DataFrame, look: Looks) -> None:
    """Lines with bands of one standard error."""
    by = ["line", "style"] if "style" in part else ["line"]
    for (name, *style), own in part.groupby(by, sort=False, observed=True):
        drawn_as = STYLES[str(style[0])] if style else "-"
        band(axes, own["x"], own["y"], own["se"], look[name], drawn_as)


def _bars(axes: Axes, part: pd.DataFrame, look: Looks, line: str = "none") -> None:
    """Points with bars from low to high."""
    for name, own in _of_lines(part):
        y = own["y"].to_numpy(float)
        axes.errorbar(
            own["x"],
            y,
            yerr=np.nan_to_num(np.abs(own[["low", "high"]].to_numpy(float).T - y)),
            color=look[name].color,
            marker=look[name].marker,
            ls=line,
            ms=4.5,
            mec="white",
            mew=0.4,
            elinewidth=0.8,
        )


def _boxes(axes: Axes, part: pd.DataFrame, look: Looks) -> None:
    """Boxes of quartiles with whiskers at 5 and 95 %, over all points of equal x."""
    for name, own in _of_lines(part):
        at = {place: values.to_numpy() for place, values in own.groupby("x")["y"]}
        axes.boxplot(
            list(at.values()),
            positions=list(at),
            widths=0.32,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": look[name].color, "alpha": 0.75, "lw": 0.6},
            medianprops={"color": "black", "lw": 1},
            whiskerprops={"lw": 0.6},
            capprops={"lw": 0.6},
        )


def _fit(axes: Axes, part: pd.DataFrame, look: Looks) -> None:
    """Points with least-squares lines, and the range of their R² in the corner."""
    quality = []
    for name, own in _of_lines(part):
        x, y = own["x"].to_numpy(float), own["y"].to_numpy(float)
        slope, intercept = np.polyfit(x, y, 1)
        axes.plot(x, y, "o", ms=3, color=look[name].color, mec="white", mew=0.3)
        axes.plot(x, intercept + slope * x, color=look[name].color, lw=0.9)
        left = np.square(y - intercept - slope * x).sum()
        quality.append(1 - left / np.square(y - y.mean()).sum())
    axes.set_ylim(0, 1.25 * part["y"].max())  # room for the text
    text = f"R² {min(quality):.2f} … {max(quality):.2f}"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize="small")


def _plain(axes: Axes, part: pd.DataFrame, look: Looks) -> None:
    """Lines without markers."""
    for name, own in _of_lines(part):
        axes.plot(own["x"], own["y"], color=look[name].color, lw=0.9)


_MARKS: Mapping[str, Callable[[Axes, pd.DataFrame, Looks], None]] = {
    "band": _band,
    "bars": _bars,
    "joined bars": partial(_bars, line="-"),
    "boxes": _boxes,
    "fit": _fit,
    "plain": _plain,
}
