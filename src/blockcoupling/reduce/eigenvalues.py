"""What kind of map a Jacobian is: its eigenvalues next to its singular values.

Definitions: docs/definitions.md.
"""

import numpy as np
import xarray as xr
from jaxtyping import Complex, Float

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
    return apply(_departure, ds["eigenvalues"], ds["jacobian_norm"], core=[["k_full"], []]).rename(
        "departure_from_normality"
    )


def spectral_abscissa(ds: xr.Dataset) -> xr.DataArray:
    """Return the largest real part of an eigenvalue of J, float64, (prompt, pair, block).

    Args:
        ds: dataset of the schema with `eigenvalues`.
    """
    return apply(_abscissa, ds["eigenvalues"], core=[["k_full"]]).rename("spectral_abscissa")


def _departure(
    eigenvalues: Complex[np.ndarray, "*any k"], norm: Float[np.ndarray, "*any"]
) -> Float[np.ndarray, "*any"]:
    squares = np.square(np.abs(eigenvalues.astype(np.complex128))).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounding may leave a normal matrix a little below 0.
        return np.sqrt(np.maximum(1 - squares / np.square(norm), 0))


def _abscissa(eigenvalues: Complex[np.ndarray, "*any k"]) -> Float[np.ndarray, "*any"]:
    return eigenvalues.real.max(axis=-1).astype(np.float64)
