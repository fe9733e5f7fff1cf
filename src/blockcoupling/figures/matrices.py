"""Mis-coupling between every two blocks, untrained beside trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from blockcoupling.errors import UserError
from blockcoupling.figures.data import Ends, NothingToShow, ends, settings
from blockcoupling.figures.matrix import CENTRES, Scale, colour_bar, draw_matrix, off_diagonal
from blockcoupling.figures.style import panels, styled
from blockcoupling.wording import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from blockcoupling.catalog import Catalog


class Matrix(NamedTuple):
    """Mean mis-coupling of a checkpoint, rows i, columns j; the diagonal is 0 by definition."""

    checkpoint: str
    values: NDArray[np.float64]


def from_catalog(catalog: Catalog, *, k: int | None = None, variant: str | None = None) -> Figure:
    """Draw the figure from the entries of the kinds model and miscoupling."""
    chosen = settings(catalog, k, variant)
    pairs = ends(catalog)
    if not pairs:
        raise NothingToShow("No model of this study was measured.")
    drawn = {
        pair.model: tuple(
            None if checkpoint is None else _read(catalog, pair, checkpoint, *chosen)
            for checkpoint in (pair.untrained, pair.trained)
        )
        for pair in pairs
    }
    return draw(drawn, *chosen)


def _read(catalog: Catalog, pair: Ends, checkpoint: str, k: int, variant: str) -> Matrix:
    """Average over datasets; each is a mean over its prompts already."""
    found = catalog.search(kind="miscoupling", model=pair.model, checkpoint=checkpoint)
    if not len(found):
        raise UserError(f"no mis-coupling matrices of {pair.model} {checkpoint} in the catalog")
    means = [
        found[name].read()["miscoupling_mean"].sel(variant=variant, K=k).to_numpy()
        for name in found
    ]
    return Matrix(checkpoint, np.mean(means, axis=0))


@styled
def draw(
    matrices: dict[str, tuple[Matrix | None, ...]],
    k: int,
    variant: str,
    rows: tuple[str, ...] = ("untrained", "trained"),
) -> Figure:
    """Draw one column per model, untrained above trained, all on one colour scale.

    Args:
        matrices: (untrained, trained) of each model; a missing one leaves its panel empty.
        k: how many singular vectors they are of.
        variant: which mis-coupling.
        rows: what the matrices of a model are of, where that is something else.

    """
    names = list(matrices)
    columns = min(len(names), 4 if len(names) <= 8 else 6)
    groups = [names[start : start + columns] for start in range(0, len(names), columns)]
    states = [
        (half, state)
        for half, state in enumerate(rows)
        if any(pair[half] is not None for pair in matrices.values())
    ]
    drawn = [m.values for pair in matrices.values() for m in pair if m is not None]
    scale = Scale([off_diagonal(values) for values in drawn], CENTRES.get(variant))
    figure, axes = panels(len(states) * len(groups), columns, size=(1.95, 2.1))
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
    for own in axes.flat:
        own.set_axis_off()
    image: Any = None
    for row, group in enumerate(groups):
        for column, model in enumerate(group):
            for n, (half, state) in enumerate(states):
                own, matrix = axes[row * len(states) + n, column], matrices[model][half]
                if matrix is None:
                    missing = f"{model}:\nno {state}\ncheckpoint"
                    own.text(0.5, 0.5, missing, ha="center", va="center")
                    continue
                image = draw_matrix(own, matrix.values, scale)
                mean = np.nanmean(off_diagonal(matrix.values))
                own.set_title(f"{model}, {matrix.checkpoint}\nmean {mean:.2f}")
                if n == len(states) - 1:
                    own.set_xlabel("block j")
                if column == 0:
                    own.set_ylabel(f"{state}\nblock i")
    colour_bar(
        figure,
        image,
        axes,
        f"mis-coupling m(i, j)\n({words(variant)}, K = {k})",
        shrink=0.6,
        aspect=30,
    )
    return figure
