"""An operator that is used only if its output and gradient agree with the block's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.jacobian.block_jacobian import BlockJacobian, one_at_a_time
from blockcoupling.jacobian.calls import context_length
from blockcoupling.jacobian.operator import Operator, StackedOperator
from blockcoupling.transformer import agreement

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from blockcoupling.jacobian.operator import Vectors
    from blockcoupling.transformer.calls import BlockCall


class CheckedOperator(Operator):
    """An operator with its context constant, or the block's own where the two disagree.

    They are compared at the first product, or with the whole J if that is computed first.
    """

    def __init__(
        self,
        fast: BlockJacobian,
        calls: Sequence[BlockCall],
        own: Callable[[], BlockJacobian | StackedOperator],
        settled: Callable[[str], object],
    ) -> None:
        self._fast, self._calls, self._own, self._settled = fast, calls, own, settled
        self._chosen: BlockJacobian | StackedOperator | None = None
        self.prompts, self.dimension = fast.prompts, fast.dimension
        self.dtype, self.device = fast.dtype, fast.device

    def settle(
        self, adjoint: Callable[[Vectors], Vectors] | None = None
    ) -> BlockJacobian | StackedOperator:
        """The operator to use, after a comparison with `adjoint`, the fast one's Jᵀ u."""
        if self._chosen is None:
            agree = _agree(self._fast.output, adjoint or self._fast.adjoint, self._calls)
            self._chosen = self._fast if agree else self._own()
            self._settled(self._chosen.attention)
        return self._chosen

    @property
    def attention(self) -> str:
        """How the block attended."""
        return self.settle().attention

    @property
    def dense_products(self) -> float:
        """Work of `dense` of the operator in use."""
        return (self._chosen or self._fast).dense_products

    def _times(self, vectors: Vectors, transposed: bool) -> Vectors:
        return self.settle().times(vectors, transposed)

    def unchanged(self) -> Bool[Tensor, " prompt"]:
        """For which prompts the block is constant."""
        return self.settle().unchanged()

    def _matrix(self) -> Float[Tensor, "prompt embed embed"]:
        if self._chosen is None:
            jacobian = self._fast.dense()
            if self.settle(lambda u: jacobian.mT @ u) is self._fast:
                return jacobian
        return self.settle().dense()


def _agree(
    output: Float[Tensor, "prompt embed"],
    adjoint: Callable[[Vectors], Vectors],
    calls: Sequence[BlockCall],
) -> bool:
    """Whether an operator has the recorded output and the block's own gradient."""
    y = torch.cat([call.output[:, -1] for call in calls])
    x = torch.cat([call.input[:, -1].to(y) for call in calls])
    if not agreement.agree(output, y, carried=x):
        return False
    # One graph serves all prompts: it is compared at the shortest and at the longest context.
    chosen = sorted(range(len(calls)), key=lambda index: context_length(calls[index]))
    chosen = sorted({chosen[0], chosen[-1]})
    probe = agreement.random_like(y, columns=1)
    mine, u = adjoint(probe)[chosen, :, 0], probe[chosen, :, 0]
    own = torch.stack([_own_pull(calls[index], one) for index, one in zip(chosen, u, strict=True)])
    return agreement.agree(mine + u, own, agreement.GROWN, carried=u)


def _own_pull(call: BlockCall, u: Float[Tensor, " embed"]) -> Float[Tensor, " embed"]:
    """(J + I)ᵀ u through the block as it is."""
    with one_at_a_time:
        x, y = agreement.at_token(call, 0)
    return agreement.pulled_back(x, y, u)
