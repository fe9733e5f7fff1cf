"""NumPy kernels over named axes of arrays that may be read lazily."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr


def apply(
    kernel: Callable[..., Any],
    *arrays: xr.DataArray,
    core: Sequence[Sequence[str]],
    out: Sequence[Sequence[str]] = ((),),
    sizes: dict[str, int] | None = None,
    **settings: Any,
) -> Any:
    """Apply a kernel to the last axes of NumPy arrays; with Dask's arrays, when it is computed.

    Args:
        kernel: takes arrays whose last axes are the core axes, and returns float64.
        arrays: its arguments. Chunks along core axes are joined.
        core: core axes of each argument.
        out: axes that each result has in place of the core axes.
        sizes: sizes of the axes in `out` that no argument has.
        settings: keyword arguments of the kernel.

    Returns:
        The result, or a tuple where `out` has several.
    """
    return xr.apply_ufunc(
        kernel,
        *(_whole(array, dims) for array, dims in zip(arrays, core, strict=True)),
        kwargs=settings,
        input_core_dims=core,
        output_core_dims=out,
        dask="parallelized",
        output_dtypes=[np.float64] * len(out),
        dask_gufunc_kwargs={"output_sizes": sizes or {}},
    )


def _whole(array: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
    split = [dim for dim in dims if len(array.chunksizes.get(dim, ())) > 1]
    return array.chunk(dict.fromkeys(split, -1)) if split else array
