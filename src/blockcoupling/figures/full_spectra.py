"""All singular values of the Jacobians, where a study keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockcoupling.figures.checkpoints import Shown, read_ends, untrained_above_trained
from blockcoupling.figures.data import first_prompt
from blockcoupling.figures.style import depth_bar, scale, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from blockcoupling.catalog import Catalog

_MOST_MODELS = 8


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kind svd: the first prompt of each model."""
    return draw(
        read_ends(
            catalog,
            lambda model, checkpoint: _read(catalog, model, checkpoint),
            "This study keeps the largest singular values only. Set extract.full: true for all.",
            most=_MOST_MODELS,
        )
    )


def _read(catalog: Catalog, model: str, checkpoint: str) -> NDArray[np.float64] | None:
    """Return the singular values at the last token, (block, d)."""
    ds = first_prompt(catalog, model, checkpoint)
    if ds is None or "S_full" not in ds:
        return None
    return ds["S_full"].values[int(np.argmax(ds["token_out"].values))].astype(np.float64)


@styled
def draw(shown: list[Shown]) -> Figure:
    """Draw a line for each block, coloured by depth."""
    smallest = min(np.quantile(each.content, 0.02) for each in shown)
    largest = max(each.content.max() for each in shown)

    def panel(axes: Axes, spectra: NDArray[np.float64]) -> None:
        for colour, s in zip(scale(len(spectra)), spectra, strict=True):
            axes.loglog(np.arange(1, len(s) + 1), s, color=colour, lw=0.9)
        axes.set_ylim(smallest, 1.3 * largest)

    figure, axes = untrained_above_trained(shown, panel, size=(2.5, 2.1), x="index k", y="$s_k$")
    depth_bar(figure, axes, "depth (block / L)")
    return figure
