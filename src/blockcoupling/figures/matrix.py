"""How a matrix between blocks is drawn: colours diverge at chance, the diagonal is grey."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from blockcoupling.config.variants import VARIANTS
from blockcoupling.figures.style import SEQUENTIAL, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

DIVERGING = "RdBu_r"
"""White at chance, blue where blocks are more similar than that, red where they are less.

Colour-blind readers can tell them apart. More similar means below chance for mis-coupling; for
quantities that grow with similarity the map is reversed.
"""

CENTRES = {name: variant.centre for name, variant in VARIANTS.items()}
"""m of unrelated blocks, to within K/d, in the variants that have such a number."""

_GREY = "#bdbdbd"
_LEAST = 0.01  # smaller differences get no colour of their own


class Scale(Normalize):
    """A colour scale for several matrices: its centre, and the values that occur on it."""

    def __init__(
        self,
        matrices: Iterable[NDArray[np.float64]],
        centre: float | None,
        *,
        similar_above: bool = False,
    ) -> None:
        """Fit the scale to the finite values; the caller passes off-diagonal ones.

        Args:
            matrices: the values to be drawn, of any shapes.
            centre: m of unrelated blocks, where colours diverge. None if there is no such number:
                colours then go from the smallest value to the largest.
            similar_above: whether values grow with the similarity of blocks; m falls.

        """
        values = np.concatenate([np.ravel(matrix) for matrix in matrices] or [np.zeros(0)])
        values = values[np.isfinite(values)]
        middle = 1.0 if centre is None else centre
        low, high = (values.min(), values.max()) if len(values) else (middle, middle)
        step = _LEAST if high - low < 10 * _LEAST else 5 * _LEAST
        low, high = np.floor(low / step + 1e-9) * step, np.ceil(high / step - 1e-9) * step
        if high == low:
            low, high = low - step, high + step
        self.centre, self.similar_above = centre, similar_above
        self.occurring = (float(low), float(high))
        reach = max(high - middle, middle - low)
        ends = (low, high) if centre is None else (middle - reach, middle + reach)
        super().__init__(float(ends[0]), float(ends[1]))

    @property
    def colours(self) -> Any:
        """The colour map; what is not drawn is grey."""
        colours = mpl.colormaps[SEQUENTIAL if self.centre is None else DIVERGING]
        if self.similar_above:
            colours = colours.reversed()
        return colours.with_extremes(bad=_GREY)


def off_diagonal(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values between different blocks, one after the other."""
    return matrix[~np.eye(len(matrix), dtype=bool)]


def draw_matrix(
    axes: Axes,
    values: NDArray[np.float64],
    scale: Scale,
    *,
    by_definition: NDArray[np.bool_] | None = None,
) -> AxesImage:
    """Draw one matrix; rows and columns are counted from 1.

    Args:
        axes: where.
        values: square; row i is the block whose Jacobian is taken, column j the one whose singular
            vectors are tried on it. Not finite where undefined: those are hatched.
        scale: of all matrices that share a colour bar.
        by_definition: what is the same for every model and left grey; the diagonal if None.

    Returns:
        The image, for :func:`colour_bar`.

    """
    size = len(values)
    known = np.eye(size, dtype=bool) if by_definition is None else by_definition
    undefined = ~np.isfinite(values) & ~known
    edge = size + 0.5
    image = axes.imshow(
        np.ma.masked_where(known | undefined, values),
        cmap=scale.colours,
        norm=scale,
        extent=(0.5, edge, edge, 0.5),
        interpolation="nearest",
    )
    if undefined.any():
        across, down = np.meshgrid(np.arange(0.5, size + 1), np.arange(0.5, size + 1))
        axes.pcolor(
            across,
            down,
            np.ma.masked_where(~undefined, np.zeros(values.shape)),
            cmap=mpl.colors.ListedColormap([_GREY]),
            hatch="////",
            edgecolor="#7a7a7a",
            linewidth=0,
        )
    axes.set_axis_on()
    axes.grid(False)
    axes.set_xticks(counted(size))
    axes.set_yticks(counted(size))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=2)
    return image


def colour_bar(figure: Figure, image: AxesImage, axes: Any, label: str, **options: Any) -> None:
    """Add the colour bar of an image, limited to the values that occur.

    Args:
        figure: where.
        image: as :func:`draw_matrix` returns it; any of those on the same scale.
        axes: the bar is next to these.
        label: what the colours mean; that white is chance is added.
        options: of `Figure.colorbar`.

    """
    scale: Any = image.norm
    bar = figure.colorbar(image, ax=axes, **{"pad": 0.02, **options})
    if bar.orientation == "horizontal":  # long numbers stand side by side
        bar.locator = MaxNLocator(3)
    low, high = scale.occurring
    if scale.centre is not None:
        low, high = min(low, scale.centre), max(high, scale.centre)
        label += f"\nwhite: {scale.centre:.3g}, about chance"
    limit = bar.ax.set_ylim if bar.orientation == "vertical" else bar.ax.set_xlim
    limit(low, high)
    bar.set_label(label)
    bar.outline.set_visible(False)
