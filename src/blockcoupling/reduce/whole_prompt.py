"""What is measured on a prompt as a whole, all its tokens together. Definitions: definitions.md."""

from __future__ import annotations

import numpy as np
import xarray as xr

from blockcoupling.reduce.cosine import block_influence
from blockcoupling.store.svd import CKA, OF_PROMPTS


def mean_block_influence(ds: xr.Dataset) -> xr.DataArray:
    """Return the mean of `cosine.block_influence` over the prompt's tokens and the blocks.

    Returns:
        float64, dimensionless, (prompt). Tokens and blocks with a state that is 0 are left out.
    """
    return block_influence(ds).mean(("token", "block")).rename("block_influence")


def neighbours_cka(ds: xr.Dataset) -> xr.DataArray:
    """Return the mean linear CKA of the outputs of neighbouring blocks l − 1 and l, l = 2 … L.

    Returns:
        float64, dimensionless, (prompt). NaN where it is undefined of one of them, and throughout
        where the store, of an older version, has none or a biased one.
    """
    found = _of_prompts(ds.drop_vars("cka") if has_biased_cka(ds) else ds, "cka")
    return found.isel(block=slice(1, None)).mean("block", skipna=False).rename("cka")


def has_biased_cka(ds: xr.Dataset) -> bool:
    """Whether a store is of a version that estimated CKA with a bias."""
    return "cka" in ds and not CKA.items() <= ds.attrs.items()


def columns(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return, lazily, one number a prompt for each; what the store does not hold is empty."""
    own = {name: _of_prompts(ds, name) for name in OF_PROMPTS if name != "cka"}
    return {"block_influence": mean_block_influence(ds), "cka": neighbours_cka(ds), **own}


def _of_prompts(ds: xr.Dataset, name: str) -> xr.DataArray:
    if name in ds:
        return ds[name]
    axes = ("prompt", "block") if name == "cka" else ("prompt",)
    empty = np.full([ds.sizes[axis] for axis in axes], np.nan)
    return xr.DataArray(empty, {axis: ds[axis] for axis in axes}, axes, name)
