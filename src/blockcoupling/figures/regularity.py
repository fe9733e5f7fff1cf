"""How regular the last token's trajectory is, untrained and trained side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.patches import Patch

from blockcoupling.figures.data import NothingToShow, ends
from blockcoupling.figures.style import legend_below, looks, model_axis, panels, styled
from blockcoupling.statistics.points import CHECKPOINT, PAIR, trajectories
from blockcoupling.statistics.predictors import of_kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_MEASURES = {each.name: each.label for each in of_kind("trajectory")}
_STATES = ("untrained", "trained")


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kinds model and trajectory."""
    pairs = ends(catalog)
    rows = [
        (pair.model, checkpoint, state)
        for pair in pairs
        for checkpoint, state in ((pair.untrained, _STATES[0]), (pair.trained, _STATES[1]))
        if checkpoint is not None
    ]
    if not rows:
        raise NothingToShow("No model of this study was measured.")
    measured = catalog.search(kind="coupling").frame(columns=PAIR)
    table = trajectories(catalog, measured)
    chosen = pd.DataFrame(rows, columns=[*CHECKPOINT, "state"])
    return draw(table.merge(chosen, on=CHECKPOINT), [pair.model for pair in pairs])


@styled
def draw(table: pd.DataFrame, models: list[str]) -> Figure:
    """Draw a row for each measure: a box for each model and state, over prompts of all datasets.

    Args:
        table: model, state, and the three measures; a row is a prompt.
        models: in which order.

    """
    look = looks(_STATES)
    there = [state for state in _STATES if (table["state"] == state).any()]
    # A trajectory with a step of zero has no such measure; the reduction says so.
    table = table.dropna(subset=list(_MEASURES))
    width = max(4.2, 0.55 * len(models) + 1.2)
    figure, axes = panels(len(_MEASURES), 1, size=(width, 1.75), sharex=True)
    for own, measure in zip(axes[:, 0], _MEASURES, strict=True):
        for shift, state in zip((-0.19, 0.19), _STATES, strict=True):
            if state not in there:
                continue
            values = [
                table[(table["model"] == model) & (table["state"] == state)][measure]
                for model in models
            ]
            places = [n + shift for n, each in enumerate(values) if len(each)]
            boxes = own.boxplot(
                [each.to_numpy() for each in values if len(each)],
                positions=places,
                widths=0.32,
                whis=(5, 95),
                showfliers=False,
                patch_artist=True,
                medianprops={"color": "black", "lw": 1},
                manage_ticks=False,
            )
            for box in boxes["boxes"]:
                box.set(facecolor=look[state].color, alpha=0.75, lw=0.6)
            for part in (*boxes["whiskers"], *boxes["caps"]):
                part.set(lw=0.6)
        own.set_ylabel(_MEASURES[measure])
        own.set_xlim(-0.6, len(models) - 0.4)
    model_axis(axes[-1, 0], models)
    axes[-1, 0].set_xlabel("model, smallest first")
    legend_below(figure, [Patch(color=look[s].color, alpha=0.75, label=s) for s in there])
    return figure
