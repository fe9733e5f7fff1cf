"""Width of the model that a dataset was measured on, which chance depends on."""

import xarray as xr

from blockcoupling.errors import UserError


def dimension(ds: xr.Dataset) -> int | None:
    """Return the width d of the residual stream; None where the dataset does not say."""
    if "dimension" in ds.attrs:
        return int(ds.attrs["dimension"])
    return next((ds.sizes[axis] for axis in ("embed", "k_full") if axis in ds.sizes), None)


def demand_dimension(ds: xr.Dataset) -> int:
    """Return the width d of the residual stream.

    Raises:
        UserError: the dataset does not say.
    """
    d = dimension(ds)
    if d is None:
        raise UserError(
            "the dataset does not say how wide the model is, and chance depends on it: add the "
            "attribute `dimension` (d, the width of the residual stream), or measure again"
        )
    return d
