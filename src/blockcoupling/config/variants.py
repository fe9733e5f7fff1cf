"""The variants of mis-coupling: the one table that everything else takes their names from.

All compare A_ij = U_jᵀ J_i V_j (or another product) with S_i. Off-diagonal entries count equally
in every variant; variants differ in how they treat the diagonal, and in their normalization.
Definitions, and which of them is whose: docs/definitions.md.

Written with methods of arrays only: the command line reads the names without loading NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blockcoupling.config.choices import PARTS

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray

PRODUCTS: Mapping[str, str] = {
    "A": "U_jᵀ J_i V_j",
    "A_swapped": "V_jᵀ J_i U_j",
    **{f"A_{part}": f"U_jᵀ J_i V_j of {part}" for part in PARTS},
}
"""What stores keep for mis-coupling; `A` always, the others where a variant needs them."""


@dataclass(frozen=True)
class Variant:
    """How one mis-coupling is made.

    Attributes:
        formula: m(i, j) as it is written.
        source: Where the definition is from.
        diagonal: Deviation of the diagonal, from diag A_ij and s_i.
        scale: What m is relative to, for every K, from s_i.
        chance: Mean of the squared deviation of a diagonal entry a over random singular vectors
            of j, from E a², E|a| and s_i; E a = 0.
        product: Which of `PRODUCTS` it is of.
        centre: m of blocks that do not line up, to within K/d, where that is one number.
        part: Which of `choices.PARTS` it compares, instead of the blocks themselves.
    """

    formula: str
    source: str
    diagonal: Callable[[Array, Array], Array]
    scale: Callable[[Array], Array]
    chance: Callable[[Array, Array, Array], Array]
    product: str = "A"
    centre: float | None = None
    part: str | None = None

    def of_part(self, name: str) -> str:
        """The variable of a store that holds `name` (S, jacobian_norm) of what is compared."""
        return name if self.part is None else f"{name}_{self.part}"


def _signed(diagonal: Array, s: Array) -> Array:
    return diagonal - s


def _unsigned(diagonal: Array, s: Array) -> Array:
    return abs(diagonal) - s


def _none(diagonal: Array, s: Array) -> Array:
    return 0 * diagonal


def _signed_chance(square: Array, absolute: Array, s: Array) -> Array:
    return square + s**2


def _unsigned_chance(square: Array, absolute: Array, s: Array) -> Array:
    return square - 2 * absolute * s + s**2


def _no_chance(square: Array, absolute: Array, s: Array) -> Array:
    return 0 * s


def _frobenius(s: Array) -> Array:
    return (s**2).cumsum(axis=-1) ** 0.5


def _trace(s: Array) -> Array:
    return s.cumsum(axis=-1)


def _of_part(part: str, source: str, what: str) -> Variant:
    return Variant(
        f"‖A_ij − S_i‖_F / ‖S_i‖_F of {what}",
        source,
        _signed,
        _frobenius,
        _signed_chance,
        product=f"A_{part}",
        centre=1.0,
        part=part,
    )


VARIANTS: Mapping[str, Variant] = {
    "frobenius": Variant(
        "‖A_ij − S_i‖_F / ‖S_i‖_F",
        "project page, version 5",
        _signed,
        _frobenius,
        _signed_chance,
        centre=1.0,
    ),
    "absolute": Variant(
        "‖abs(A_ij) − S_i‖_F / ‖S_i‖_F",
        "released code, p = 2",
        _unsigned,
        _frobenius,
        _unsigned_chance,
        centre=1.0,
    ),
    "absolute_trace": Variant(
        "‖abs(A_ij) − S_i‖_F / tr S_i", "released code, p = 1", _unsigned, _trace, _unsigned_chance
    ),
    "offdiagonal": Variant(
        "‖A_ij − Diag(A_ij)‖_F / ‖S_i‖_F", "version 3, eq. 13–14", _none, _frobenius, _no_chance
    ),
    "swapped": Variant(
        "‖abs(A_ij) − S_i‖_F / ‖S_i‖_F with A_ij = V_jᵀ J_i U_j",
        'released code, "vju"',
        _unsigned,
        _frobenius,
        _unsigned_chance,
        product="A_swapped",
        centre=1.0,
    ),
    "attention": _of_part("attention", "here", "the blocks' attention alone"),
    "mlp": _of_part("mlp", "here", "the blocks' MLPs alone"),
    "detached": _of_part("detached", "J of arXiv 2505.24293", "detached Jacobians"),
}

DEFAULT_VARIANT = "frobenius"

OF_BLOCKS = tuple(name for name, variant in VARIANTS.items() if variant.part is None)
"""The variants that compare the blocks themselves."""

if TYPE_CHECKING:
    VariantName = str
else:
    VariantName = Literal[tuple(VARIANTS)]
    """A variant's name, where it is validated: in the configuration, on the command line."""


def products(variants: Iterable[str]) -> set[str]:
    """Which of `PRODUCTS` these variants need."""
    return {VARIANTS[name].product for name in variants}
