"""Grids of panels: a column for each model (or measure), a row for each of its states."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from blockcoupling.figures.style import panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Place(NamedTuple):
    """A panel of a grid.

    Attributes:
        axes: its axes.
        leftmost: whether it is the first panel of its row.
        lowest: whether it is in the last row of its group.
    """

    axes: Axes
    leftmost: bool
    lowest: bool


def grid(
    cells: Sequence[tuple[Hashable, Hashable]],
    *,
    size: tuple[float, float],
    widest: int = 4,
    **options: Any,
) -> tuple[Any, Any, list[Place]]:
    """Return a figure, all its axes, and the place of each cell.

    Columns and rows are in order of appearance. Columns that do not fit side by side go below, in
    further groups of rows; rows that would be empty are left out, panels that are empty hidden.

    Args:
        cells: the (column, row) of each panel.
        size: of a panel, in inches.
        widest: number of columns that fit side by side.
        options: of `subplots`.

    """
    columns = list(dict.fromkeys(column for column, _ in cells))
    states = list(dict.fromkeys(row for _, row in cells))
    across = min(widest, len(columns))
    at = [
        (*divmod(columns.index(column), across), states.index(row)) for column, row in cells
    ]  # group, column, state
    rows = sorted({(group, state) for group, _, state in at})
    figure, axes = panels(len(rows), across, size=size, **options)
    for own in axes.flat:
        own.set_axis_off()
    first = {(g, s): min(c for g2, c, s2 in at if (g2, s2) == (g, s)) for g, s in rows}
    places = []
    for group, column, state in at:
        row = rows.index((group, state))
        own = axes[row, column]
        own.set_axis_on()
        lowest = row + 1 == len(rows) or rows[row + 1][0] != group
        places.append(Place(own, column == first[group, state], lowest))
    return figure, axes, places
