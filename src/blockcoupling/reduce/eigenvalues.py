"""What kind of map a Jacobian is: its eigenvalues next to its singular values.

Definitions: docs/definitions.md.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float

from blockcoupling.reduce.lazily import apply


def departure_from_normality(ds: xr.Dataset) -> xr.DataArray:
    """Return sqrt(‖J‖_F² − Σ|λ|²) / ‖J‖_F: 0 for a normal J, 1 for a nilpotent one (Henrici, 1962).

    Args:
        ds: dataset of the schema with `eigenvalues`, in memory or lazy; lazy stays lazy.

    Returns:
        float64, dimensionless, (prompt, pair, block). NaN where J is 0 or padding.

    Example:
        >>> ds = bc.measure(model, tokenizer, "Two roads", k=5, eigenvalues=True)
        >>> bool((bc.departure_from_normality(ds) < 1).all())
        True
    """
    sizes = abs(ds["eigenvalues"])
    found = apply(_departure, sizes, ds["jacobian_norm"], core=[["k_full"], []])
    return found.rename("departure_from_normality")


def spectral_abscissa(ds: xr.Dataset) -> xr.DataArray:
    """Return the largest real part of an eigenvalue of J, float64, (prompt, pair, block).

    Args:
        ds: dataset of the schema with `eigenvalues`.
    """
    largest = ds["eigenvalues"].real.max("k_full").astype(np.float64)
    return largest.rename("spectral_abscissa")


def _departure(
    sizes: Float[np.ndarray, "*any k"], norm: Float[np.ndarray, "*any"]
) -> Float[np.ndarray, "*any"]:
    squares = np.square(sizes, dtype=np.float64).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounding may leave a normal matrix a little below 0.
        return np.sqrt(np.maximum(1 - squares / np.square(norm), 0))
