"""How far blocks turn the residual stream: cosines between its states, from their Gram matrix."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from blockcoupling.reduce.lazily import apply
from blockcoupling.reduce.trajectory import Gram


def state_cosines(ds: xr.Dataset) -> xr.DataArray:
    """Return cos(x^a, x^b) of every token's states x^0 … x^L.

    Args:
        ds: dataset of the schema, in memory or lazy; lazy stays lazy.

    Returns:
        float64, dimensionless, (prompt, token, state, state_other); state 0 is the input of the
        first block. NaN where a state is exactly zero and where a shorter prompt is padded.
    """
    axes = ["state", "state_other"]
    cosines = apply(state_cosines_kernel, ds["gram"], core=[axes], out=[axes])
    return cosines.rename("state_cosines")


def block_influence(ds: xr.Dataset) -> xr.DataArray:
    """Return 1 − cos of every block's input and output: 0 where it only changes their length.

    Block influence of Men et al., "ShortGPT" (arXiv 2403.03853), of one token.

    Returns:
        float64, dimensionless, (prompt, token, block). NaN as in `state_cosines`.
    """
    cosines = state_cosines(ds)
    before = range(cosines.sizes["state"] - 1)
    pairs = [cosines.isel(state=i, state_other=i + 1) for i in before]
    joined = xr.concat(pairs, "block", coords="minimal", compat="override")
    kept = joined.drop_vars(["state", "state_other"], errors="ignore")
    numbered = kept.assign_coords(block=[i + 1 for i in before])
    return (1 - numbered).transpose("prompt", "token", "block").rename("block_influence")


def state_cosines_kernel(gram: Gram) -> Float[np.ndarray, "*any L+1 L+1"]:
    """Cosines between x^0, x^0 + δ^1, … from the inner products of (x^0, δ^1 … δ^L)."""
    inner = np.cumsum(np.cumsum(np.asarray(gram, np.float64), axis=-1), axis=-2)
    length = np.sqrt(np.einsum("...ii->...i", inner))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = inner / (length[..., :, None] * length[..., None, :])
    return np.clip(cosines, -1, 1)
