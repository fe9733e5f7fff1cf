"""The overlaps of singular vectors: the one table that everything else takes their names from.

Where A demands the same order and sign of singular vectors, an overlap's size does not change with
signs, order or rotations within the top-K subspace. Definitions: docs/definitions.md.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Vectors = Literal["U", "V"]


class Overlap(NamedTuple):
    """One matrix left_iᵀ right_j, K × K, for blocks i and j."""

    formula: str
    label: str
    """For axes and tables."""
    asks: str
    left: Vectors
    right: Vectors
    earlier: bool = False
    """Whether it means something for j < i only: what block i can have from block j."""


OVERLAPS: Mapping[str, Overlap] = {
    "output_overlap": Overlap(
        "U_iᵀ U_j",
        "output overlap",
        "do blocks i and j write into the same directions?",
        "U",
        "U",
    ),
    "input_overlap": Overlap(
        "V_iᵀ V_j", "input overlap", "do they read from the same ones?", "V", "V"
    ),
    "composition": Overlap(
        "V_iᵀ U_j, j < i",
        "composition",
        "does block i read what block j wrote?",
        "V",
        "U",
        earlier=True,
    ),
}

CUMULATIVE: Mapping[str, Overlap] = {
    "cumulative_output_overlap": Overlap(
        "U^c_iᵀ U_j",
        "cumulative output overlap",
        "does all that happens up to block i end in what block j writes?",
        "U",
        "U",
    ),
    "cumulative_input_overlap": Overlap(
        "V^c_iᵀ V_j",
        "cumulative input overlap",
        "does it depend on what block j reads?",
        "V",
        "V",
    ),
}
"""Overlaps of the top triples of the cumulative Jacobian Π (I + J_l), l ≤ i, with each block's."""
