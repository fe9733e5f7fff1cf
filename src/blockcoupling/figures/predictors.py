"""How much of the score each predictor explains, all on one axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.style import Look, keys, legend_below, looks, panels, styled
from blockcoupling.statistics.predictors import LABELS
from blockcoupling.wording import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entry of the kind correlation."""
    return draw(catalog.one(kind="correlation").read())


@styled
def draw(correlation: pd.DataFrame) -> Figure:
    """Draw R² with its interval: a panel per headline metric, a row per predictor.

    Args:
        correlation: as `statistics.correlate.correlate` returns it, with headline.

    """
    shown = correlation[correlation["headline"] & correlation["subset_kind"].eq("checkpoints")]
    if shown.empty:
        raise NothingToShow("No checkpoint of this study has a score.")
    metrics = list(shown.groupby(["score", "metric"], sort=True))
    names = list(shown["predictor"].drop_duplicates())[::-1]
    look = looks(shown["subset"].drop_duplicates())
    figure, axes = panels(
        1, len(metrics), size=(3.3, 0.9 + 0.27 * len(names)), sharey=True, sharex=True
    )
    for own, ((score, metric), part) in zip(axes.flat, metrics, strict=True):
        for n, (subset, rows) in enumerate(part.groupby("subset", sort=False)):
            offset = 0.22 * (n - (len(look) - 1) / 2)
            heights = [names.index(predictor) - offset for predictor in rows["predictor"]]
            _dots(own, rows, heights, look[str(subset)])
        own.set_title(words(f"{score} {metric}"))
        own.set_xlabel("R², with 95 % interval")
        own.set_xlim(-0.03, 1.03)
        own.grid(axis="y", visible=False)
    for own in axes.flat:
        for y in range(len(names) - 1):
            own.axhline(y + 0.5, color="#eeeeee", lw=0.6)
    axes[0, 0].set_yticks(range(len(names)), [LABELS.get(name, name) for name in names])
    axes[0, 0].set_ylim(-0.6, len(names) - 0.4)
    legend_below(figure, keys(look, line=False))
    return figure


def _dots(axes: Axes, rows: pd.DataFrame, y: list[float], look: Look) -> None:
    r2, low, high = (rows[name].to_numpy(float) for name in ("r2", "r2_low", "r2_high"))
    reach = np.nan_to_num(np.clip([r2 - low, high - r2], 0, None))
    sure = np.isfinite(low)
    axes.errorbar(r2, y, xerr=reach, fmt="none", ecolor=look.color, elinewidth=1)
    for filled, chosen in ((True, sure), (False, ~sure)):
        axes.plot(
            r2[chosen],
            np.asarray(y)[chosen],
            look.marker,
            color=look.color,
            mfc=look.color if filled else "white",
            mec="white" if filled else look.color,
            mew=0.4 if filled else 1,
            ms=4.5,
        )
