"""How many directions a block's Jacobian acts on, and how strongly, by depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.figures.data import NothingToShow, at_last, ends
from blockcoupling.figures.style import band, keys, legend_below, log_heights, looks, panels, styled
from blockcoupling.statistics.points import CHECKPOINT, mean_over_prompts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_MEASURES = {
    "jacobian_norm": "‖J‖",
    "participation_ratio": "participation ratio",
    "effective_rank": "entropy effective rank",
}


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kinds model, spectra and trajectory."""
    rows = [
        (pair.model, checkpoint, state)
        for pair in ends(catalog)
        for checkpoint, state in ((pair.untrained, "untrained"), (pair.trained, "trained"))
        if checkpoint is not None
    ]
    if not rows:
        raise NothingToShow("No model of this study was measured.")
    table = at_last(catalog, "spectra", [(model, checkpoint) for model, checkpoint, _ in rows])
    means = mean_over_prompts(table, [*CHECKPOINT, "block"], list(_MEASURES))
    return draw(pd.DataFrame(rows, columns=[*CHECKPOINT, "state"]).merge(means, on=CHECKPOINT))


@styled
def draw(means: pd.DataFrame) -> Figure:
    """Draw a row for each measure, untrained left of trained, a line for each model.

    Args:
        means: model, state, block, and the measures with their standard errors `_se`.

    """
    states = [state for state in ("untrained", "trained") if (means["state"] == state).any()]
    look = looks(means["model"].unique())
    depth = means.groupby("model")["block"].transform("max")
    means = means.assign(place=means["block"] / depth)
    figure, axes = panels(len(_MEASURES), len(states), size=(3.0, 1.8), sharex=True, sharey="row")
    for row, (measure, label) in zip(axes, _MEASURES.items(), strict=True):
        for own, state in zip(row, states, strict=True):
            for model, line in means[means["state"] == state].groupby("model", sort=False):
                band(own, line["place"], line[measure], line[f"{measure}_se"], look[str(model)])
            log_heights(own, means[measure])
        row[0].set_ylabel(label)
    for own, state in zip(axes[0], states, strict=True):
        own.set_title(state)
    for own in axes[-1]:
        own.set_xlabel("depth (block / L)")
    legend_below(figure, keys(look))
    return figure
