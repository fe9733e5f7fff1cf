"""Trajectories of a prompt's tokens through the blocks, on two principal components."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection

from blockcoupling.figures.checkpoints import Shown, read_ends, untrained_above_trained
from blockcoupling.figures.data import first_prompt
from blockcoupling.figures.style import SEQUENTIAL, depth_bar, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from blockcoupling.catalog import Catalog

_MOST_MODELS = 4


class Trajectories(NamedTuple):
    """States of all tokens, (token, state, 2), and how much of their variance each axis has."""

    states: NDArray[np.float64]
    explained: NDArray[np.float64]


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kind svd: the first prompt of each model."""
    return draw(
        read_ends(
            catalog,
            lambda model, checkpoint: _read(catalog, model, checkpoint),
            "No extraction store in this catalog has principal components.",
            most=_MOST_MODELS,
        )
    )


def _read(catalog: Catalog, model: str, checkpoint: str) -> Trajectories | None:
    ds = first_prompt(catalog, model, checkpoint)
    if ds is None or "pca" not in ds:
        return None
    states = ds["pca"].values[: int(ds["tokens"])].astype(np.float64)
    return Trajectories(states, ds["pca_explained"].values.astype(np.float64))


@styled
def draw(shown: list[Shown]) -> Figure:
    """Draw a line for each token, coloured by depth; the last token's ends are marked."""
    figure, axes = untrained_above_trained(
        shown, _panel, size=(2.5, 2.4), x="component 1", y="component 2"
    )
    depth_bar(figure, axes, "depth (0: first block, 1: last)")
    return figure


def _panel(axes: Axes, content: Trajectories) -> None:
    states = content.states
    depth = np.linspace(0, 1, states.shape[1] - 1)
    for n, token in enumerate(states):
        segments = np.stack([token[:-1], token[1:]], axis=1)
        last = n == len(states) - 1
        axes.add_collection(
            LineCollection(
                list(segments), cmap=SEQUENTIAL, array=depth, lw=1.8 if last else 0.7, zorder=2
            )
        )
    axes.scatter(states[:, 0, 0], states[:, 0, 1], s=5, color="black", zorder=3)
    axes.scatter(states[-1, -1, 0], states[-1, -1, 1], s=22, marker="*", color="#d55e00", zorder=4)
    _frame(axes, states)
    axes.locator_params(nbins=4)
    share = " + ".join(f"{100 * x:.0f}" for x in content.explained)
    axes.text(0.97, 0.03, f"{share} %", transform=axes.transAxes, ha="right", fontsize="small")


def _frame(axes: Axes, states: NDArray[np.float64]) -> None:
    """Frame all tokens; where the first one goes far beyond them, the others.

    Trained models put activations of thousands there (an attention sink), beside which nothing else
    would be seen.
    """
    axes.autoscale_view()
    others = states[1:].reshape(-1, 2)
    if not len(others) or np.ptp(states[0], axis=0).max() < 5 * np.ptp(others, axis=0).max():
        return
    low, high = others.min(axis=0), others.max(axis=0)
    margin = 0.06 * (high - low)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    axes.text(
        0.03, 0.97, "first token leaves", transform=axes.transAxes, va="top", fontsize="small"
    )
