"""Panels of untrained above trained, a column for each model: the layout of several figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from blockcoupling.figures.data import NothingToShow, ends, largest
from blockcoupling.figures.style import panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_WIDEST = 4


class Shown(NamedTuple):
    """One checkpoint of a model, and what is drawn of it."""

    model: str
    checkpoint: str
    trained: bool
    content: Any


def read_ends(
    catalog: Catalog, read: Callable[[str, str], Any], nothing: str, most: int | None = None
) -> list[Shown]:
    """Read something of the untrained and the final checkpoint of each model, smallest first.

    Args:
        catalog: where they are.
        read: model, checkpoint → what is drawn; None where there is nothing.
        nothing: what to say when there is nothing at all.
        most: only so many models: those that can be shown untrained as well, the largest of them,
            before others.

    Raises:
        NothingToShow: no checkpoint has anything.

    """
    pairs = ends(catalog) if most is None else largest(ends(catalog), most)
    shown = [
        Shown(pair.model, checkpoint, trained, content)
        for pair in pairs
        for checkpoint, trained in ((pair.untrained, False), (pair.trained, True))
        if checkpoint is not None and (content := read(pair.model, checkpoint)) is not None
    ]
    if not shown:
        raise NothingToShow(nothing)
    return shown


def untrained_above_trained(
    shown: Sequence[Shown],
    panel: Callable[[Axes, Any], None],
    *,
    size: tuple[float, float],
    x: str,
    y: str,
    **options: Any,
) -> tuple[Figure, Any]:
    """Draw one panel for each; return the figure and its axes.

    Args:
        shown: what to draw.
        panel: draws one content into its axes.
        size: of one panel, in inches.
        x: label of the horizontal axes.
        y: label of the vertical axes.
        options: of `subplots`.

    """
    models = list(dict.fromkeys(each.model for each in shown))
    columns = min(_WIDEST, len(models))
    places = [divmod(models.index(each.model), columns) for each in shown]
    # (group of models, state), without rows that would be empty.
    rows = sorted({(group, each.trained) for each, (group, _) in zip(shown, places, strict=True)})
    figure, axes = panels(len(rows), columns, size=size, **options)
    for own in axes.flat:
        own.set_axis_off()
    named: set[int] = set()
    for each, (group, column) in sorted(zip(shown, places, strict=True), key=lambda it: it[1]):
        row = rows.index((group, each.trained))
        own = axes[row, column]
        own.set_axis_on()
        panel(own, each.content)
        own.set_title(f"{each.model}, {each.checkpoint}")
        if row + 1 == len(rows) or rows[row + 1][0] != group:
            own.set_xlabel(x)
        if row not in named:  # its first panel
            own.set_ylabel(f"{'trained' if each.trained else 'untrained'}\n{y}")
            named.add(row)
    return figure, axes
