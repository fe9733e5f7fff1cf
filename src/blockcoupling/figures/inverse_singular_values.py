"""1/s_k against depth, with the line that Residual Alignment found in ResNets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from blockcoupling.figures.checkpoints import Shown, read_ends, untrained_above_trained
from blockcoupling.figures.data import at_last
from blockcoupling.figures.style import Look, counted, keys, legend_below, scale, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_SHOWN = (1, 2, 5, 10)
_MOST_MODELS = 8


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kinds model, singular_values and trajectory."""
    return draw(
        read_ends(
            catalog,
            lambda model, checkpoint: _read(catalog, model, checkpoint),
            "No model of this study was measured.",
            most=_MOST_MODELS,
        )
    )


def _read(catalog: Catalog, model: str, checkpoint: str) -> pd.DataFrame:
    table = at_last(
        catalog, "singular_values", [(model, checkpoint)], filters=[("k", "in", _SHOWN)]
    )
    table = table[table["s"] > 0]  # a block that does nothing has no inverse
    table = table.assign(inverse=1 / table["s"])
    return table.groupby(["k", "block"], as_index=False)[["inverse"]].mean()


@styled
def draw(shown: list[Shown]) -> Figure:
    """Draw marks of the means over prompts, and least-squares lines with their R²."""
    look = {k: Look(c, "o") for k, c in zip(_SHOWN, scale(len(_SHOWN)), strict=True)}

    def panel(axes: Axes, means: pd.DataFrame) -> None:
        quality = []
        for k, line in means.groupby("k"):
            colour = look[int(str(k))].color
            x, y = line["block"].to_numpy(float), line["inverse"].to_numpy(float)
            slope, intercept = np.polyfit(x, y, 1)
            axes.plot(x, y, "o", ms=3, color=colour, mec="white", mew=0.3)
            axes.plot(x, intercept + slope * x, color=colour, lw=0.9)
            left = np.square(y - intercept - slope * x).sum()
            quality.append(1 - left / np.square(y - y.mean()).sum())
        axes.set_xticks(counted(int(means["block"].max())))
        low, high = min(quality), max(quality)
        # Room above for what is written there.
        axes.set_ylim(0, 1.25 * means["inverse"].max())
        axes.text(
            0.03,
            0.97,
            f"R² {low:.2f} … {high:.2f}",
            transform=axes.transAxes,
            va="top",
            fontsize="small",
        )

    figure, _ = untrained_above_trained(shown, panel, size=(2.4, 2.0), x="block", y="1 / $s_k$")
    there = {k for each in shown for k in each.content["k"]}
    legend_below(figure, keys({f"$k$ = {k}": look[k] for k in _SHOWN if k in there}))
    return figure
