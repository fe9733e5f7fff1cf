"""Names are as long as users make them: nothing on a figure covers another thing."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure

from blockcoupling.figures.style import keys, legend_below, looks, panels, settle, styled

LONG = [f"vit-stochastic_depth0.{n}-weight_decay0.05-seed{n}" for n in range(8)]


@styled
def drawn(names: list[str], *, rows: int = 1, columns: int = 4) -> Figure:
    figure, axes = panels(rows, columns, size=(1.6, 1.6))
    for own, name in zip(axes.flat, names, strict=False):
        own.plot([0, 1])
        own.set_title(f"{name}, epoch30\nmean 0.97")
    legend_below(figure, keys(looks(names)))
    settle(figure)
    return figure


@pytest.mark.parametrize("rows", [1, 2])
def test_long_titles_are_broken_and_short_ones_left(rows: int) -> None:
    figure = drawn(LONG, rows=rows)
    titles = [axes.title for axes in figure.axes]
    boxes = [title.get_window_extent() for title in titles]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    for title, name in zip(titles, LONG, strict=False):
        assert title.get_text().replace("\n", "").replace(" ", "") == f"{name},epoch30mean0.97"
    short = drawn(["neox-48", "neox-80", "neox-128", "neox-256"])
    assert short.axes[0].title.get_text() == "neox-48, epoch30\nmean 0.97"


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 4)])
def test_a_long_legend_and_broken_titles_leave_panels_their_height(rows: int, columns: int) -> None:
    usual = drawn(["neox-48", "neox-80"], rows=rows, columns=columns)
    heights = [
        [axes.get_window_extent().height for axes in figure.axes]
        for figure in (drawn(LONG, rows=rows, columns=columns), usual)
    ]
    assert np.min(heights[0]) > 0.75 * np.min(heights[1])
