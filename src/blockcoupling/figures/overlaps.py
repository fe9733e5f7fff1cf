"""Mis-coupling beside the three overlaps, for every two blocks, untrained above trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.errors import UserError
from blockcoupling.figures.data import NothingToShow, ends, largest, settings
from blockcoupling.figures.matrix import CENTRES, Scale, colour_bar, draw_matrix
from blockcoupling.figures.style import panels, styled
from blockcoupling.reduce.overlap import above_chance
from blockcoupling.reduce.width import dimension
from blockcoupling.wording import words

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from blockcoupling.catalog import Catalog

_MODELS = 2
_MISCOUPLING = "miscoupling"


class Checkpoint(NamedTuple):
    """One row of the figure.

    Attributes:
        name: what it is.
        matrices: `miscoupling`, and how far each of `OVERLAPS` is above chance, by name.
    """

    name: str
    matrices: Mapping[str, NDArray[np.float64]]


def from_catalog(catalog: Catalog, *, k: int | None = None, variant: str | None = None) -> Figure:
    """Draw the figure from the entries of the kinds model and miscoupling."""
    chosen = settings(catalog, k, variant)
    rows, lacking = [], []
    for pair in largest(ends(catalog), _MODELS):
        for checkpoint in (pair.untrained, pair.trained):
            if checkpoint is None:
                continue
            found = catalog.search(kind="miscoupling", model=pair.model, checkpoint=checkpoint)
            if not len(found):
                raise UserError(
                    f"no mis-coupling matrices of {pair.model} {checkpoint} in the catalog"
                )
            tables = [found[name].read() for name in found]
            if not all(f"{name}_mean" in each for each in tables for name in OVERLAPS):
                lacking.append(f"{pair.model} {checkpoint}")
                continue
            each = [_matrices(table, *chosen) for table in tables]
            means = {name: np.mean([m[name] for m in each], axis=0) for name in each[0]}
            rows.append(Checkpoint(f"{pair.model}, {checkpoint}", means))
    if not rows:
        whose = f" of {', '.join(lacking)}" if lacking else ""
        raise NothingToShow(
            f"No overlaps were measured{whose}: set extract.overlaps to true for this figure."
        )
    return draw(rows, *chosen)


def _matrices(table: xr.Dataset, k: int, variant: str) -> dict[str, NDArray[np.float64]]:
    """Return the matrices of a checkpoint on one dataset, each a mean over its prompts."""
    own, d = table.sel(K=k), dimension(table)
    matrices = {_MISCOUPLING: own["miscoupling_mean"].sel(variant=variant).to_numpy()}
    if d is None:
        raise NothingToShow("It is not known how wide the models are, which chance depends on.")
    for name in OVERLAPS:
        mean = own[f"{name}_mean"].load()
        matrices[name] = above_chance(mean, 0 * mean + k / d).to_numpy()
    return matrices


@styled
def draw(rows: list[Checkpoint], k: int, variant: str) -> Figure:
    """Draw one row per checkpoint and one column per kind of matrix, with a scale of its own.

    Args:
        rows: the checkpoints.
        k: how many singular vectors they are of.
        variant: which mis-coupling.

    """
    labels = {_MISCOUPLING: f"mis-coupling m(i, j)\n{words(variant)}, K = {k}"}
    labels |= {name: f"{each.label}\nabove chance, K = {k}" for name, each in OVERLAPS.items()}
    figure, axes = panels(len(rows), len(labels), size=(2.05, 2.0))
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
    for column, (name, label) in enumerate(labels.items()):
        drawn = [row.matrices[name] for row in rows]
        known = [_by_definition(len(values), name) for values in drawn]
        scale = Scale(
            [values[~grey] for values, grey in zip(drawn, known, strict=True)],
            CENTRES.get(variant) if name == _MISCOUPLING else 0.0,
            alike_above=name != _MISCOUPLING,
        )
        for own, row, values, grey in zip(axes[:, column], rows, drawn, known, strict=True):
            image = draw_matrix(own, values, scale, by_definition=grey)
            defined = values[~grey & np.isfinite(values)]
            mean = f"mean {defined.mean():.3f}" if len(defined) else "all undefined"
            own.set_title(f"{row.name}\n{mean}" if column == 0 else mean)
            if column == 0:
                own.set_ylabel("block i")
        axes[-1, column].set_xlabel("block j")
        colour_bar(figure, image, axes[:, column], label, location="bottom", shrink=0.85, aspect=18)
    return figure


def _by_definition(size: int, name: str) -> NDArray[np.bool_]:
    """Return which entries are the same for every model, or without meaning."""
    row, column = np.indices((size, size))
    earlier = name in OVERLAPS and OVERLAPS[name].earlier
    return column >= row if earlier else column == row
