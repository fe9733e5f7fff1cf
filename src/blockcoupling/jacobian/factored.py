"""Products with a Jacobian whose pieces between linear layers have known forms.

Without automatic differentiation, J x and Jᵀ y are a few products with weights, each of all
prompts' vectors together, and of each prompt's vectors with its pieces (`pieces`) between them.
That the two are adjoints of each other is checked in every measurement: the iteration finds its
triples with Jᵀ u = s v, and the second sweep compares J v with s u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.jacobian.linear_maps import quickest
from blockcoupling.jacobian.pieces import Piece

if TYPE_CHECKING:
    from jaxtyping import Float

    Rows = Float[Tensor, "prompt k embed"]


@dataclass(frozen=True, eq=False)
class Leaf:
    """Where pieces begin: the output of a linear layer with this matrix (input, output), or x."""

    matrix: Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """A value that pieces end at: the input of layers, or y in the last step.

    Attributes:
        pieces: for each leaf that the value depends on, a piece for each prompt.
        leaves: the outputs of the layers whose input the value is.
    """

    pieces: Sequence[tuple[Leaf, Sequence[Piece]]]
    leaves: Sequence[Leaf]


@dataclass(frozen=True, eq=False)
class Factored:
    """∂y/∂x of several prompts as a product of sparse pieces and of weights.

    Attributes:
        steps: in the order of the function; the last is y.
        first: x.
    """

    steps: Sequence[Step]
    first: Leaf

    @torch.no_grad()
    def push(self, x: Rows) -> Rows:
        """J of every prompt times its vectors; a vector in each row."""
        at = {self.first: x}
        value: Tensor | None = None
        for step in self.steps:
            value = None
            for leaf, pieces in step.pieces:
                if leaf in at:
                    pairs = zip(pieces, at[leaf], strict=True)
                    value = _add(value, torch.stack([p.columns(v.mT).mT for p, v in pairs]))
            if value is not None:
                at.update({leaf: _product(value, leaf.matrix) for leaf in step.leaves})
        return torch.zeros_like(x) if value is None else value

    @torch.no_grad()
    def pull(self, y: Rows) -> Rows:
        """The transposed of J of every prompt times its vectors; a vector in each row."""
        at: dict[Leaf, Tensor] = {}
        value: Tensor | None = y
        for step in reversed(self.steps):
            for leaf in step.leaves:
                if leaf in at:
                    value = _add(value, _product(at.pop(leaf), leaf.matrix.mT))
            if value is not None:
                for leaf, pieces in step.pieces:
                    pairs = zip(pieces, value, strict=True)
                    at[leaf] = _add(at.get(leaf), torch.stack([p.rows(v) for p, v in pairs]))
            value = None
        return at[self.first] if self.first in at else torch.zeros_like(y)


def _add(before: Tensor | None, more: Tensor) -> Tensor:
    return more if before is None else before.add_(more)


def _product(vectors: Rows, matrix: Float[Tensor, "n m"]) -> Rows:
    return quickest(vectors.reshape(-1, matrix.shape[0]), matrix).view(*vectors.shape[:2], -1)
