"""Every predictor's slope over all models beside that among models that are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.style import Look, keys, legend_below, panels, styled
from blockcoupling.statistics.predictors import LABELS
from blockcoupling.wording import words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_POOLED = "over all models"
_LOOKS = {
    _POOLED: Look("#8c8c8c", "o"),
    "within": Look("#0072B2", "s"),
    "within, another slope than between groups": Look("#E69F00", "D"),
    "within, the opposite sign": Look("#D55E00", "v"),
}
_OF_VERDICT = dict(zip(("not told apart", "differ", "opposite"), list(_LOOKS)[1:], strict=True))
_OF_VERDICT["cannot be told"] = _OF_VERDICT["not told apart"]
_WIDEST = 2.0
"""Standard deviations of the score to either side; what goes beyond leaves the panel."""


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entry of the kind within."""
    return draw(catalog.one(kind="within").read())


@styled
def draw(within: pd.DataFrame) -> Figure:
    """Draw slopes with their intervals: a row of panels per headline metric, a panel per grouping.

    Args:
        within: as `statistics.within.within_groups` returns it, with headline.

    """
    shown = _subset(within[within["headline"]])
    metrics = list(shown.groupby(["score", "metric"], sort=True))
    grouped = shown.groupby("alike", sort=False)["within_low"].count()
    alike = list(grouped[grouped > 0].index)
    names = list(shown["predictor"].drop_duplicates())[::-1]
    figure, axes = panels(
        len(metrics),
        len(alike),
        size=(2.5 if len(alike) > 1 else 4.2, 0.9 + 0.27 * len(names)),
        sharey=True,
        sharex=True,
    )
    for line, ((score, metric), part) in zip(axes, metrics, strict=True):
        for own, name in zip(line, alike, strict=True):
            _panel(own, part[part["alike"] == name], names)
            title = words(f"{score} {metric}, {part['subset'].iloc[0]}")
            own.set_title(f"{title}\nover all, and within {name}")
        line[0].set_yticks(range(len(names)), [LABELS.get(name, name) for name in names])
    ends = shown[["pooled_low", "pooled_high", "within_low", "within_high"]].to_numpy(float)
    reach = min(_WIDEST, 1.05 * float(np.nanmax(np.abs(ends))))
    axes[0, 0].set_xlim(-reach, reach)
    axes[0, 0].set_ylim(-0.6, len(names) - 0.4)
    for own in axes[-1]:
        own.set_xlabel("standardized slope, 95 % interval")
    legend_below(figure, keys(_LOOKS, line=False))
    return figure


def _subset(headline: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one subset: the final checkpoints, where enough of them are alike."""
    if headline.empty:
        raise NothingToShow("No checkpoint of this study has a score.")
    for name in ("final", "trained", "all checkpoints"):
        own = headline[headline["subset"] == name]
        if own["within_low"].notna().any():
            return own
    raise NothingToShow(
        "Too few models are alike, in depth, width, or family, for a slope among them."
    )


def _panel(axes: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    for row in rows.to_dict("records"):
        height = names.index(row["predictor"])
        within = _LOOKS[_OF_VERDICT[row["verdict"]]]
        _slope(axes, row, "pooled", height + 0.17, _LOOKS[_POOLED])
        _slope(axes, row, "within", height - 0.17, within)
    axes.axvline(0, color="#555555", lw=0.7, zorder=0.9)
    axes.grid(axis="y", visible=False)
    for y in range(len(names) - 1):
        axes.axhline(y + 0.5, color="#eeeeee", lw=0.6)


def _slope(axes: Axes, row: dict[Any, Any], name: str, y: float, look: Look) -> None:
    axes.plot([row[f"{name}_low"], row[f"{name}_high"]], [y, y], color=look.color, lw=1)
    axes.plot(row[name], y, look.marker, color=look.color, mec="white", mew=0.4, ms=4.5)
