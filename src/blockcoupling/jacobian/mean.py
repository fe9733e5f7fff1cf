"""The mean of several Jacobians of a block, over the patches of an image, as one operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.jacobian.operator import Operator

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from blockcoupling.jacobian.operator import Vectors


class MeanOperator(Operator):
    """J̄ = (1/n) Σ_t J_t, as one Jacobian.

    Args:
        members: each makes an operator of some of the n Jacobians, whenever it is needed: the
            graphs of all of them may not fit into memory together.
    """

    prompts = 1
    dense_products = 0.0

    def __init__(self, members: Sequence[Callable[[], Operator]]) -> None:
        self._members = members
        first = members[0]()
        self.dimension, self.dtype, self.device = first.dimension, first.dtype, first.device
        self._attention = {first.attention}
        self.dense_products = first.dense_products  # of products with the mean
        if first.matmul_error is not None:
            each = (member().matmul_error for member in members)
            worst = torch.cat([error for error in each if error is not None]).max()
            self.matmul_error = worst[None]

    @property
    def attention(self) -> str:
        """How the blocks of the members made so far attended."""
        return "+".join(sorted(self._attention))

    def _mean(self, of: Callable[[Operator], Tensor]) -> Tensor:
        total, count = torch.zeros((), dtype=self.dtype, device=self.device), 0
        for make in self._members:
            member = make()
            total = total + of(member).sum(0, keepdim=True)
            count += member.prompts
            self._attention.add(member.attention)
        return total / count

    def _times(self, vectors: Vectors, transposed: bool) -> Vectors:
        return self._mean(lambda m: m.times(vectors.expand(m.prompts, -1, -1), transposed))

    def _matrix(self) -> Float[Tensor, "1 embed embed"]:
        return self._mean(lambda member: member.dense())

    def unchanged(self) -> Bool[Tensor, " 1"]:
        """Whether all members' functions are constant."""
        return torch.tensor([all(bool(make().unchanged().all()) for make in self._members)])
