"""The variants of mis-coupling: the one table that everything else takes their names from.

All compare A_ij = U_jᵀ J_i V_j (or another product) with S_i. Off-diagonal entries count alike in
every variant, so that one is made of what it does with the diagonal, and of what it is relative to.
Definitions, and which of them is whose: docs/definitions.md.

Written with methods of arrays only: the command line reads the names without loading NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray

PRODUCTS: Mapping[str, str] = {"A": "U_jᵀ J_i V_j", "A_swapped": "V_jᵀ J_i U_j"}
"""What stores keep for mis-coupling; `A` always, the others where a variant needs them."""


@dataclass(frozen=True)
class Variant:
    """How one mis-coupling is made.

    Attributes:
        formula: m(i, j) as it is written.
        source: Where the definition is from.
        diagonal: Deviation of the diagonal, from diag A_ij and s_i.
        scale: What m is relative to, for every K, from s_i.
        product: Which of `PRODUCTS` it is of.
    """

    formula: str
    source: str
    diagonal: Callable[[Array, Array], Array]
    scale: Callable[[Array], Array]
    product: str = "A"


def _signed(diagonal: Array, s: Array) -> Array:
    return diagonal - s


def _unsigned(diagonal: Array, s: Array) -> Array:
    return abs(diagonal) - s


def _none(diagonal: Array, s: Array) -> Array:
    return 0 * diagonal


def _frobenius(s: Array) -> Array:
    return (s**2).cumsum(axis=-1) ** 0.5


def _trace(s: Array) -> Array:
    return s.cumsum(axis=-1)


VARIANTS: Mapping[str, Variant] = {
    "frobenius": Variant(
        "‖A_ij − S_i‖_F / ‖S_i‖_F", "project page, version 5", _signed, _frobenius
    ),
    "absolute": Variant(
        "‖abs(A_ij) − S_i‖_F / ‖S_i‖_F", "released code, p = 2", _unsigned, _frobenius
    ),
    "absolute_trace": Variant(
        "‖abs(A_ij) − S_i‖_F / tr S_i", "released code, p = 1", _unsigned, _trace
    ),
    "offdiagonal": Variant(
        "‖A_ij − Diag(A_ij)‖_F / ‖S_i‖_F", "version 3, eq. 13–14", _none, _frobenius
    ),
    "swapped": Variant(
        "‖abs(A_ij) − S_i‖_F / ‖S_i‖_F with A_ij = V_jᵀ J_i U_j",
        'released code, "vju"',
        _unsigned,
        _frobenius,
        product="A_swapped",
    ),
}

DEFAULT_VARIANT = "frobenius"

if TYPE_CHECKING:
    VariantName = str
else:
    VariantName = Literal[tuple(VARIANTS)]
    """A variant's name, where it is validated: in the configuration, on the command line."""


def products(variants: Iterable[str]) -> set[str]:
    """Which of `PRODUCTS` these variants need."""
    return {VARIANTS[name].product for name in variants}
