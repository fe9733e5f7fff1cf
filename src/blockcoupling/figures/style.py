"""How every figure looks: type, axes, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, SymmetricalLogLocator

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from numpy.typing import ArrayLike

SEQUENTIAL = "viridis"
"""For values, and for what grows (K, training steps). Even in lightness, so readable in grey."""

FAINT = "#8c8c8c"

MOST_KEYS = 16
"""Number of names in a legend or along an axis at most."""

_OVER_THE_EDGE = 1.1
"""How much wider than its axes a title may be: there is a gap between panels."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), without its yellow."""

_MARKERS = "osD^vPX"

_RULES: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "blockcoupling",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function under these rules, leaving Matplotlib's own as they are."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(_RULES):
            return function(*args, **kwargs)

    return run


class Look(NamedTuple):
    """How one thing looks wherever it is drawn."""

    color: Any
    marker: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Give each name a colour and a marker: a few of the palette, or many along a scale."""
    listed = list(names)
    if len(listed) <= len(_COLOURS):
        colours: Iterable[Any] = _COLOURS
    else:
        colours = scale(len(listed))
    return {
        name: Look(colour, _MARKERS[n % len(_MARKERS)])
        for n, (name, colour) in enumerate(zip(listed, colours, strict=False))
    }


def scale(number: int) -> list[Any]:
    """Return a given number of colours along the sequential scale, without its faintest end."""
    return [mpl.colormaps[SEQUENTIAL](x) for x in np.linspace(0, 0.88, number)]


def panels(rows: int, columns: int, *, size: tuple[float, float], **options: Any) -> Any:
    """Return a figure and its (rows, columns) axes; `size` is that of one panel in inches."""
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def band(
    axes: Axes, x: ArrayLike, y: ArrayLike, error: ArrayLike, look: Look, style: str = "-"
) -> None:
    """Draw a line with markers and a band of one standard error."""
    values, errors = np.asarray(y, float), np.nan_to_num(np.asarray(error, float))
    axes.fill_between(
        np.asarray(x, float), values - errors, values + errors, color=look.color, alpha=0.2, lw=0
    )
    axes.plot(x, values, style, color=look.color, marker=look.marker, mec="white", mew=0.4)


def step_axis(axes: Axes, steps: ArrayLike) -> None:
    """Make x a training step: linear from 0 to 1, logarithmic from there."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    largest = max(10.0, float(np.max(np.asarray(steps, float))))
    powers = np.arange(0, np.floor(np.log10(largest)) + 1)
    # Every power of ten as long as there are few, so that labels never touch.
    axes.set_xticks([0, *10.0 ** powers[:: 1 + len(powers) // 6]])
    axes.xaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=range(2, 10)))
    axes.set_xlim(-0.15, largest * 1.25)


def log_heights(axes: Axes, values: ArrayLike) -> None:
    """Make y logarithmic, with plain numbers as labels: 1, 2, 5 or whole powers of ten."""
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis, values, narrow=2)


def log_widths(axes: Axes, values: ArrayLike) -> None:
    """Make x logarithmic likewise; labels stand side by side there, so that there are fewer."""
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis, values, narrow=1.3)


def _plain_numbers(axis: Axis, values: ArrayLike, narrow: float) -> None:
    array = np.asarray(values, float)
    spread = np.ptp(np.log10(array[array > 0])) if (array > 0).any() else 0
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if spread < narrow else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def model_axis(axes: Axes, models: Sequence[str]) -> None:
    """Name models along x at 0, 1, …; at an angle where they are many."""
    many = len(models) > 3
    every = -(-len(models) // MOST_KEYS)  # names that touch cannot be read
    axes.set_xticks(range(0, len(models), every), models[::every], rotation=30 if many else 0)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right" if many else "center")


def depth_bar(figure: Figure, axes: Any, label: str) -> None:
    """Put a colour bar for depth, 0 … 1 of the sequential scale, next to some axes."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), SEQUENTIAL), ax=axes, shrink=0.6, aspect=30, pad=0.02
    )
    bar.set_label(label)
    bar.outline.set_linewidth(0.5)


def counted(number: int) -> list[int]:
    """Return ticks for an axis that counts 1 … number (blocks, distances), at most seven."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if number <= 6 * step or step == 100)
    if step <= 2:
        return list(range(1, number + 1, step))
    return [1, *range(step, number + 1, step)]


def legend_below(figure: Figure, handles: Iterable[Artist]) -> None:
    """Put one legend for all panels below them, in as many columns as the width allows."""
    listed = _some(list(handles))
    longest = max(len(str(handle.get_label())) for handle in listed)
    fitting = int(figure.get_figwidth() / (0.55 + 0.062 * longest))  # inches, at this type size
    columns = max(1, min(fitting, len(listed)))
    rows = -(-len(listed) // columns)
    _heighten(figure, rows - 2)  # the panels' size leaves room for two
    figure.legend(handles=listed, loc="outside lower center", ncols=columns)


def _some(handles: list[Artist]) -> list[Artist]:
    """Where they are too many to be read, a few from first to last, as their colours go."""
    if len(handles) <= MOST_KEYS:
        return handles
    chosen = np.linspace(0, len(handles) - 1, MOST_KEYS // 2).round().astype(int)
    between = Line2D([], [], ls="none", label=f"… of {len(handles)}")
    return [*(handles[n] for n in chosen), between]


def keys(look: Mapping[str, Look], *, line: bool = True) -> list[Artist]:
    """Return what a legend shows for each name."""
    style = "-" if line else "none"
    return [
        Line2D([], [], ls=style, color=c, marker=m, mec="white", mew=0.4, label=name)
        for name, (c, m) in look.items()
    ]


@styled
def statement(text: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = Figure(figsize=(5, 1.4), layout="constrained")
    figure.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color="#555555")
    return figure


@styled
def settle(figure: Figure) -> None:
    """Work out the layout once and keep it, so that every file of a figure has the same."""
    figure.draw_without_rendering()
    if _wrap_titles(figure):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _wrap_titles(figure: Figure) -> bool:
    """Break titles that reach into their neighbours' (names of models) into lines."""
    longer: dict[int, int] = {}
    for axes in figure.axes:
        place, title = axes.get_subplotspec(), axes.title
        room = axes.get_window_extent().width * _OVER_THE_EDGE
        width = title.get_window_extent().width
        if place is None or width <= room:
            continue
        lines = title.get_text().split("\n")
        fitting = int(max(map(len, lines)) * room / width)
        broken = [part for line in lines for part in _broken(line, fitting)]
        title.set_text("\n".join(broken))
        row = place.rowspan.start
        longer[row] = max(longer.get(row, 0), len(broken) - len(lines))
    _heighten(figure, sum(longer.values()))
    return bool(longer)


def _broken(text: str, fitting: int) -> list[str]:
    """Break a text at spaces, hyphens and underscores into lines that fit."""
    lines = [""]
    for part in re.findall(r"[^-_\s]*[-_\s]*", text):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > fitting:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _heighten(figure: Figure, lines: int) -> None:
    """Make room for further lines of text."""
    figure.set_figheight(figure.get_figheight() + 0.16 * max(0, lines))
