"""Products with a block's same-token Jacobian that can be differentiated by the block's weights.

The block's inputs (its tokens' states) are constants; its output at the last token is a function of
that token's state and of the weights, also through the keys and values of the earlier tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.caches import fresh
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.recording import CannotDecode, record_calls, record_in_two

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class LastTokens:
    """The calls of all blocks that lead to the last token of some prompts.

    The last token is decoded, so that a cotangent passes the block's wide layers for one token
    only. For a model that cannot decode it passes them for all tokens.

    Args:
        model: in evaluation mode, with eager attention (its kernel is differentiated twice).
        blocks: its blocks.
        ids: prompts of one length, none of it padding.
    """

    def __init__(self, model: nn.Module, blocks: Blocks, ids: Int[Tensor, "prompt token"]) -> None:
        self._whole: list[BlockCall] | None = None
        self._context: Sequence[BlockCall] = ()
        try:
            self._context, self._own = record_in_two(model, blocks, ids)
        except CannotDecode:
            self._whole = record_calls(model, blocks, ids, use_cache=False)

    def jacobian(self, block: int) -> WeightedJacobian:
        """The Jacobian of one block (0 …) at the last tokens, minus the identity."""
        if self._whole is not None:
            whole = self._whole[block]
            point = whole.input[:, -1].clone().requires_grad_(True)
            states = torch.cat([whole.input[:, :-1], point[:, None]], dim=1)
            return WeightedJacobian(point, whole(states)[:, -1])
        own = self._own[block]
        point = own.input[:, 0].clone().requires_grad_(True)
        cache = fresh((self._context[block] if self._context else own).cache())
        if self._context:
            context = self._context[block]
            context.into(context.input, cache)
        return WeightedJacobian(point, own.into(point[:, None], cache)[:, 0])


class WeightedJacobian:
    """J = ∂y/∂x − I of independent prompts, with the weights in its graph.

    Args:
        point: the tokens' states x, which require a gradient.
        output: the block's output y, with its graph.
    """

    def __init__(
        self, point: Float[Tensor, "prompt embed"], output: Float[Tensor, "prompt embed"]
    ) -> None:
        self.point, self._output = point, output

    def dense(self) -> Float[Tensor, "prompt embed embed"]:
        """J as constants, rows = output, columns = input."""
        unit = torch.eye(self.point.shape[-1]).to(self.point)
        return self._pull(unit.expand(len(self.point), -1, -1), graph=False)

    def from_left(self, u: Float[Tensor, "prompt embed k"]) -> Float[Tensor, "prompt k embed"]:
        """UᵀJ, differentiable by the block's weights."""
        return self._pull(u, graph=True)

    def _pull(
        self, u: Float[Tensor, "prompt embed k"], graph: bool
    ) -> Float[Tensor, "prompt k embed"]:
        (pulled,) = torch.autograd.grad(
            self._output,
            self.point,
            u.permute(2, 0, 1),
            retain_graph=True,
            create_graph=graph,
            is_grads_batched=True,
        )
        return pulled.transpose(0, 1) - u.mT
