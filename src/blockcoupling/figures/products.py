"""The products A_ij = U_jᵀ J_i V_j themselves: coupled blocks have a visible diagonal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np

from blockcoupling.figures.data import NothingToShow, ends_of, first_prompt, settings
from blockcoupling.figures.style import panels, styled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from blockcoupling.catalog import Catalog

_MOST_BLOCKS = 6
_SCALE = "magma"


class Products(NamedTuple):
    """|A_ij| over s_1 of J_i, (block, block_other, k, k_other), for some blocks of one prompt."""

    title: str
    blocks: list[int]
    values: NDArray[np.float64]


def read(catalog: Catalog, *, k: int | None = None, variant: str | None = None) -> list[Products]:
    """Read the first prompt of the largest model from the entries of kind svd."""
    most = settings(catalog, k, variant).k
    found = []
    for model, checkpoint, _ in ends_of(catalog, most=1):
        ds = first_prompt(catalog, model, checkpoint)
        if ds is not None:
            found.append(_products(ds, f"{model}, {checkpoint}", most))
    if not found:
        raise NothingToShow("No extraction store is in this catalog.")
    return found


def _products(ds: xr.Dataset, name: str, k: int) -> Products:
    last = int(np.argmax(ds["token_out"].values))
    # Next to each other, and halfway through the model: coupling is local in depth.
    first = max(0, (ds.sizes["block"] - _MOST_BLOCKS) // 2)
    some = np.arange(first, min(first + _MOST_BLOCKS, ds.sizes["block"]))
    few = {"block": some, "block_other": some, "k": slice(k), "k_other": slice(k)}
    a = ds["A"].isel(pair=last).isel(few).values.astype(np.float64)
    top = ds["S"].isel(pair=last, block=some, k=0).values.astype(np.float64)
    blocks = [int(block) for block in ds["block"].values[some]]
    title = f"{name}\n{ds['prompt'].item()}, K = {a.shape[-1]}"
    return Products(title, blocks, abs(a) / top[:, None, None, None])


@styled
def draw(products: list[Products]) -> Figure:
    """Draw one panel for each checkpoint, a tile for every pair of blocks, one colour scale."""
    figure, axes = panels(1, len(products), size=(3.6, 3.7))
    image: Any = None
    for own, one in zip(axes.flat, products, strict=True):
        n, k = len(one.blocks), one.values.shape[-1]
        whole = one.values.transpose(0, 2, 1, 3).reshape(n * k, n * k)
        image = own.imshow(whole, cmap=mpl.colormaps[_SCALE], vmin=0, vmax=1)
        for edge in range(1, n):
            own.axhline(edge * k - 0.5, color="white", lw=0.6)
            own.axvline(edge * k - 0.5, color="white", lw=0.6)
        centres = [(i + 0.5) * k - 0.5 for i in range(n)]
        own.set_xticks(centres, one.blocks)
        own.set_yticks(centres, one.blocks)
        own.tick_params(length=0)
        own.grid(False)
        own.set_title(one.title)
        own.set_xlabel("block j, whose singular vectors")
        own.set_ylabel("block i, whose Jacobian")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=25, pad=0.02)
    bar.set_label("|U$_j^T$ J$_i$ V$_j$| / s$_1$ of J$_i$")
    bar.outline.set_linewidth(0.5)
    return figure
