"""The panel function of figures of matrices between blocks or tokens, in a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from blockcoupling.figures.layout import grid
from blockcoupling.figures.matrix import Scale, colour_bar, draw_matrix
from blockcoupling.figures.style import styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_READABLE = 16  # names along an axis


class Matrix(NamedTuple):
    """One panel.

    Attributes:
        column: of the grid; a model, say.
        row: of the grid; `untrained`, say.
        title: above it.
        values: square, rows i, columns j; None leaves the panel empty, with its title as text.
        known: entries that are equal by definition, left grey; the diagonal if None.
        scale: which of the figure's scales it is drawn on.
        names: of the rows and columns; None counts from 1.
    """

    column: Any
    row: Any
    title: str
    values: NDArray[np.float64] | None
    known: NDArray[np.bool_] | None = None
    scale: str = ""
    names: Sequence[str] | None = None

    @property
    def varying(self) -> NDArray[np.float64]:
        """The values that are not equal by definition."""
        assert self.values is not None
        known = np.eye(len(self.values), dtype=bool) if self.known is None else self.known
        return self.values[~known]


class Scaling(NamedTuple):
    """What the colours of a scale mean; see `matrix.Scale`."""

    label: str
    centre: float | None
    similar_above: bool = False


class Matrices(NamedTuple):
    """The content of a figure: its panels, and its colour scales by name."""

    panels: Sequence[Matrix]
    scales: Mapping[str, Scaling]


@styled
def draw(
    content: Matrices,
    *,
    x: str = "block j",
    y: str = "block i",
    size: tuple[float, float] = (1.95, 2.1),
    widest: int | None = None,
    rows_named: bool = True,
) -> Figure:
    """Draw the panels, with a colour bar on the right or, of several scales, one below for each.

    Args:
        content: the panels and scales.
        x: label of the columns of a matrix.
        y: label of its rows.
        size: of a panel, in inches.
        widest: number of panels side by side; by default 4, or 6 of more than 8 columns.
        rows_named: whether the labels on the left say which row of the grid it is.

    """
    cells = [(each.column, each.row) for each in content.panels]
    many = len({each.column for each in content.panels}) > 8
    figure, axes, places = grid(cells, size=size, widest=widest or (6 if many else 4))
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
    for name, scaling in content.scales.items():
        own = [n for n, each in enumerate(content.panels) if each.scale == name]
        drawn = [content.panels[n] for n in own if content.panels[n].values is not None]
        scale = Scale(
            [each.varying for each in drawn], scaling.centre, similar_above=scaling.similar_above
        )
        for n in own:
            place, panel = places[n], content.panels[n]
            if panel.values is None:
                place.axes.set_axis_off()
                place.axes.text(0.5, 0.5, panel.title, ha="center", va="center")
                continue
            image = draw_matrix(place.axes, panel.values, scale, by_definition=panel.known)
            place.axes.set_title(panel.title)
            if panel.names is not None:
                _name(place.axes, panel.names)
            if place.lowest or panel.names is not None:
                place.axes.set_xlabel(x)
            if place.leftmost:
                place.axes.set_ylabel(f"{panel.row}\n{y}" if rows_named else y)
        if len(content.scales) == 1:
            colour_bar(figure, image, axes, scaling.label, shrink=0.6, aspect=30)
        else:
            above = list(dict.fromkeys(places[n].axes for n in own))
            wide = len({content.panels[n].column for n in own})
            where = {"location": "bottom", "shrink": 0.85, "aspect": 18 * wide}
            colour_bar(figure, image, above, scaling.label, **where)
    return figure


def _name(axes: Axes, names: Sequence[str]) -> None:
    """Name rows and columns, every one or as many as can be read."""
    step = -(-len(names) // _READABLE)
    at = list(range(1, len(names) + 1, step))
    shown = [name if len(name) <= 14 else f"{name[:9]}…{name[-4:]}" for name in names[::step]]
    axes.set_xticks(at, shown, rotation=90)
    axes.set_yticks(at, shown)
    axes.tick_params(labelsize="x-small")
