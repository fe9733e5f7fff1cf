"""Singular values of the residual Jacobians by depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.figures.data import NothingToShow, at_last, ends
from blockcoupling.figures.style import (
    Look,
    band,
    counted,
    keys,
    legend_below,
    log_heights,
    panels,
    scale,
    styled,
)
from blockcoupling.statistics.points import CHECKPOINT, mean_over_prompts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_SHOWN = (1, 2, 5, 10, 20, 50)
_WIDEST = 4


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kinds model, singular_values and trajectory."""
    pairs = ends(catalog)
    order = pd.DataFrame(
        [
            (pair.model, checkpoint, trained)
            for pair in pairs
            for checkpoint, trained in ((pair.untrained, False), (pair.trained, True))
            if checkpoint is not None
        ],
        columns=[*CHECKPOINT, "trained"],
    )
    if order.empty:
        raise NothingToShow("No model of this study was measured.")
    means = []
    for model, checkpoint in order[CHECKPOINT].itertuples(index=False, name=None):
        # One checkpoint at a time: the table has a row for every singular value.
        table = at_last(
            catalog, "singular_values", [(model, checkpoint)], filters=[("k", "in", _SHOWN)]
        )
        means.append(mean_over_prompts(table, [*CHECKPOINT, "block", "k"], ["s"]))
    return draw(order.merge(pd.concat(means), on=CHECKPOINT))


@styled
def draw(means: pd.DataFrame) -> Figure:
    """Draw one column per model, untrained above trained, one line per index k.

    Args:
        means: model, checkpoint, trained (bool), block, k, s, s_se.

    """
    models = list(means["model"].unique())
    columns = min(_WIDEST, len(models))
    groups = [models[start : start + columns] for start in range(0, len(models), columns)]
    states = [state for state in (False, True) if (means["trained"] == state).any()]
    look = {k: Look(c, "o") for k, c in zip(_SHOWN, scale(len(_SHOWN)), strict=True)}
    figure, axes = panels(len(groups) * len(states), columns, size=(2.3, 1.95), sharey=True)
    for own in axes.flat:
        own.set_axis_off()
    for row, group in enumerate(groups):
        for column, model in enumerate(group):
            for half, trained in enumerate(states):
                part = means[(means["model"] == model) & (means["trained"] == trained)]
                if part.empty:
                    continue
                own = axes[row * len(states) + half, column]
                own.set_axis_on()
                for k, line in part.groupby("k"):
                    band(own, line["block"], line["s"], line["s_se"], look[int(k)])
                log_heights(own, means["s"])
                own.set_title(f"{model}, {part['checkpoint'].iloc[0]}")
                own.set_xticks(counted(int(part["block"].max())))
                if half == len(states) - 1:
                    own.set_xlabel("block")
                if column == 0:
                    own.set_ylabel("singular value $s_k$")
    shown = {f"$k$ = {k}": look[k] for k in _SHOWN if (means["k"] == k).any()}
    legend_below(figure, keys(shown))
    return figure
