"""The figure of one model measured by hand: mean mis-coupling of every pair of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blockcoupling.errors import UserError
from blockcoupling.figures.drawing import FORMATS, save
from blockcoupling.figures.matrix import CENTRES, Scale, colour_bar, draw_matrix, off_diagonal
from blockcoupling.figures.style import panels, settle, styled
from blockcoupling.reduce.chance import chance
from blockcoupling.reduce.coupling import miscoupling
from blockcoupling.reduce.width import dimension
from blockcoupling.wording import words

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_LONGEST_LINE = 52


def figure_format(path: str | Path) -> str:
    """Return the format of a figure from its file name; call it before long work.

    Raises:
        UserError: unknown format.

    """
    chosen = Path(path).suffix.lstrip(".")
    if chosen not in FORMATS:
        endings = ", ".join(f".{each}" for each in FORMATS)
        raise UserError(f"unknown figure format: {path}; use a name that ends in {endings}")
    return chosen


def quick_figure(ds: xr.Dataset, k: int, variant: str, title: str, path: str | Path) -> None:
    """Write the L × L matrix of mis-coupling, mean over prompts and pairs.

    Args:
        ds: a dataset of the schema.
        k: how many singular vectors are compared.
        variant: of the mis-coupling.
        title: what was measured.
        path: of the file; its ending is the format.

    Raises:
        UserError: k, variant or format not available.

    """
    chosen = figure_format(path)
    figure = draw(ds, k, variant, title)
    save(figure, Path(path).with_suffix(""), [chosen])


@styled
def draw(ds: xr.Dataset, k: int, variant: str, title: str) -> Figure:
    """Draw the figure; see :func:`quick_figure`."""
    mean = miscoupling(ds, k=k, variant=variant).mean(["prompt", "pair"]).to_numpy()
    others = off_diagonal(mean)
    defined = others[np.isfinite(others)]
    scale = Scale([others], _centre(ds, k, variant))
    figure, axes = panels(1, 1, size=(4.6, 3.9))
    (own,) = axes.flat
    image = draw_matrix(own, mean, scale)
    said = f"mean {defined.mean():.3f} off the diagonal" if len(defined) else "all undefined"
    if len(defined) < len(others):
        said += f"; hatched: undefined ({len(others) - len(defined)})"
    own.set_title(f"{_shortened(title)}\n{said}")
    own.set_xlabel("block j, whose singular vectors")
    own.set_ylabel("block i, whose Jacobian")
    prompts = ds.sizes["prompt"]
    over = f"{prompts} prompt{'s' * (prompts != 1)}"
    colour_bar(
        figure,
        image,
        axes,
        f"mis-coupling m(i, j), {words(variant)}, K = {k}, {over}",
        aspect=25,
    )
    settle(figure)
    return figure


def _centre(ds: xr.Dataset, k: int, variant: str) -> float | None:
    """Return the value of chance if the width of the model is known."""
    if dimension(ds) is None:
        return CENTRES.get(variant)
    found = float(chance(ds, k, variant).mean())
    return found if np.isfinite(found) else CENTRES.get(variant)


def _shortened(text: str) -> str:
    """Omit the beginning of a long text: the end of a path is more informative."""
    return text if len(text) <= _LONGEST_LINE else f"…{text[1 - _LONGEST_LINE :]}"
