"""An operator that is used only where it agrees with the block itself, output and gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.jacobian.block_jacobian import BlockJacobian, one_at_a_time
from blockcoupling.jacobian.calls import point
from blockcoupling.jacobian.operator import Operator, StackedOperator

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from blockcoupling.jacobian.operator import Vectors
    from blockcoupling.transformer.calls import BlockCall


class CheckedOperator(Operator):
    """An operator with its context held apart, once it agrees with the block's own attention.

    Where it does not, the block's own takes its place. They are compared when the first product is
    asked for, or the whole J, which then serves for the comparison.
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
        """The operator to use; compared, if it has not been, by Jᵀ u with J of the fast one."""
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
        """Of the operator that is used."""
        return (self._chosen or self._fast).dense_products

    def matmat(self, v: Vectors) -> Vectors:
        """J v."""
        chosen = self.settle()
        self.products += v.shape[-1]
        return chosen.matmat(v)

    def adjoint(self, u: Vectors) -> Vectors:
        """Jᵀ u."""
        chosen = self.settle()
        self.products += u.shape[-1]
        return chosen.adjoint(u)

    def unchanged(self) -> Bool[Tensor, " prompt"]:
        """For which prompts the block does not change."""
        return self.settle().unchanged()

    def dense(self) -> Float[Tensor, "prompt embed embed"]:
        """J for every prompt."""
        self.products += round(self.dense_products)
        if self._chosen is None:
            jacobian = self._fast.dense()
            # The residual Jacobian, as products with it are.
            if self.settle(lambda u: jacobian.mT @ u) is self._fast:
                return jacobian
        return self.settle().dense()


def _agree(
    output: Float[Tensor, "prompt embed"],
    adjoint: Callable[[Vectors], Vectors],
    calls: Sequence[BlockCall],
) -> bool:
    """Whether an operator has the recorded output and the block's own gradient, to rounding.

    Rounding is that of sums over d in float32 (1.2e-7 × a few hundred); a different attention
    (another scale, a missing bias) is off by far more. In float64 too, since most models take
    their softmax in float32 all the same.
    """
    eps = torch.finfo(torch.float32).eps
    y = torch.cat([call.output[:, -1] for call in calls])
    x = torch.cat([call.input[:, -1] for call in calls])
    error = (output - y).norm(dim=1)
    if not bool((error <= 1e3 * eps * (y - x).norm(dim=1) + 30 * eps * y.norm(dim=1)).all()):
        return False
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(*y.shape, 1, generator=generator, dtype=torch.float64).to(y)
    mine = adjoint(probe)
    theirs = torch.cat([_own_adjoint(c, p) for c, p in zip(calls, probe[..., 0], strict=True)])
    difference = (mine[..., 0] - theirs).norm(dim=1)
    return bool((difference <= 1e4 * eps * theirs.norm(dim=1)).all())


def _own_adjoint(call: BlockCall, u: Float[Tensor, " embed"]) -> Float[Tensor, "1 embed"]:
    """Jᵀ u through the block as it is."""
    with one_at_a_time, torch.enable_grad():
        x = point(call)[:, 0].detach().requires_grad_(True)
        y = call(x[:, None])[:, 0]
    (pulled,) = torch.autograd.grad(y, x, u[None].to(y))
    return pulled - u
