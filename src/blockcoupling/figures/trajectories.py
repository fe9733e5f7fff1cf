"""Trajectories of a prompt's tokens through the blocks, on two principal components."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection

from blockcoupling.figures.data import NothingToShow, ends_of, first_prompt
from blockcoupling.figures.layout import grid
from blockcoupling.figures.style import SEQUENTIAL, depth_bar, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from blockcoupling.catalog import Catalog

_MOST_MODELS = 4


class Trajectories(NamedTuple):
    """The states of all tokens of a prompt at one checkpoint.

    Attributes:
        model: whose they are.
        state: `untrained` or `trained`.
        title: of their panel.
        states: (token, state, 2), on two principal components.
        explained: share of the variance of each component.
    """

    model: str
    state: str
    title: str
    states: NDArray[np.float64]
    explained: NDArray[np.float64]


def read(catalog: Catalog) -> list[Trajectories]:
    """Read the first prompt of untrained and final checkpoints from the entries of kind svd."""
    found = []
    for model, checkpoint, state in ends_of(catalog, most=_MOST_MODELS):
        ds = first_prompt(catalog, model, checkpoint)
        if ds is None or "pca" not in ds:
            continue
        states = ds["pca"].values[: int(ds["tokens"])].astype(np.float64)
        explained = ds["pca_explained"].values.astype(np.float64)
        found.append(Trajectories(model, state, f"{model}, {checkpoint}", states, explained))
    if not found:
        raise NothingToShow("No extraction store in this catalog has principal components.")
    return found


@styled
def draw(shown: list[Trajectories]) -> Figure:
    """Draw a line for each token, coloured by depth; the last token's ends are marked."""
    cells = [(each.model, each.state) for each in shown]
    figure, axes, places = grid(cells, size=(2.5, 2.4))
    for place, each in zip(places, shown, strict=True):
        _panel(place.axes, each)
        place.axes.set_title(each.title)
        if place.lowest:
            place.axes.set_xlabel("component 1")
        if place.leftmost:
            place.axes.set_ylabel(f"{each.state}\ncomponent 2")
    depth_bar(figure, axes, "depth (0: first block, 1: last)")
    return figure


def _panel(axes: Axes, content: Trajectories) -> None:
    states = content.states
    depth = np.linspace(0, 1, states.shape[1] - 1)
    for n, token in enumerate(states):
        segments = list(np.stack([token[:-1], token[1:]], axis=1))
        wide = 1.8 if n == len(states) - 1 else 0.7
        lines = LineCollection(segments, cmap=SEQUENTIAL, array=depth, lw=wide, zorder=2)
        axes.add_collection(lines)
    axes.scatter(states[:, 0, 0], states[:, 0, 1], s=5, color="black", zorder=3)
    axes.scatter(states[-1, -1, 0], states[-1, -1, 1], s=22, marker="*", color="#d55e00", zorder=4)
    _frame(axes, states)
    axes.locator_params(nbins=4)
    share = " + ".join(f"{100 * x:.0f}" for x in content.explained)
    axes.text(0.97, 0.03, f"{share} %", transform=axes.transAxes, ha="right", fontsize="small")


def _frame(axes: Axes, states: NDArray[np.float64]) -> None:
    """Frame all tokens; where the first one goes far beyond them, the others.

    Trained models put activations of thousands there (an attention sink), which would hide all
    others.
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
