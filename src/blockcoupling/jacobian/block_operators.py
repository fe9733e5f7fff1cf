"""Linear operators from a block's recorded calls: at one token, or from one token to another.

The residual Jacobian of block l from token t1 to token t2 is ∂f(X)_{t2}/∂x_{t1} with f = F − id
(arXiv 2407.07810): for t1 = t2 the Jacobian of the block minus the identity, for t1 ≠ t2 the
Jacobian itself, since the skip connection does not cross tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian import batches
from blockcoupling.jacobian.block_jacobian import BlockJacobian
from blockcoupling.jacobian.calls import context_length, merged, point, surroundings
from blockcoupling.jacobian.checked import CheckedOperator
from blockcoupling.jacobian.matmul import Matmul
from blockcoupling.jacobian.operator import Operator, StackedOperator
from blockcoupling.transformer import agreement
from blockcoupling.transformer.agreement import UNREPEATABLE, WHY_UNREPEATABLE
from blockcoupling.transformer.attention import UnsupportedAttention, attend_to
from blockcoupling.transformer.calls import BlockCall

if TYPE_CHECKING:
    from jaxtyping import Float

logger = logging.getLogger(__name__)


class SameToken:
    """Operators of a model's blocks, as `same_token` makes them.

    How a block attends is determined at its first use and kept.

    Args:
        calls: block index → its decode calls, one per prompt.
        matmul: precision of the blocks' matrix products.
    """

    def __init__(
        self, calls: Callable[[int], Sequence[BlockCall]], matmul: Matmul = "float32"
    ) -> None:
        self._calls, self._matmul = calls, matmul
        self._attention: dict[int, str] = {}

    def __call__(self, block: int) -> Operator:
        """The operator of one block (0 …), with a newly recorded graph."""
        return same_token(
            self._calls(block),
            self._matmul,
            self._attention.get(block),
            partial(self._attention.__setitem__, block),
        )


def same_token(
    calls: Sequence[BlockCall],
    matmul: Matmul = "float32",
    attention: str | None = None,
    settled: Callable[[str], object] = lambda attention: None,
) -> Operator:
    """The Jacobians of a block from each prompt's last token to itself, minus the identity.

    The block is called with exactly its recorded arguments. Its attention is replaced by one that
    holds the context constant if that gives the same output and the same gradient; the operator's
    `attention` says which was used.

    Args:
        calls: one call of the same block on one token per prompt: a decode step
            (`recording.record_decode`), or the token among all others (`bidirectional.alone`).
        matmul: precision of the block's matrix products.
        attention: how the block attends, if it is known from an operator of these calls.
        settled: called with how the block attends, once that is known.
    """
    fast = None if attention == "eager" else _one_token(calls)
    if fast is None:
        settled("eager")
        return _all_eager(calls, matmul)
    if attention == "one-token":
        return _lowered(fast, matmul)
    checked = CheckedOperator(fast, calls, lambda: _all_eager(calls, "float32"), settled)
    if matmul == "float32":
        return checked
    return _lowered(fast, matmul) if checked.settle() is fast else _all_eager(calls, matmul)


def between_tokens(
    call: BlockCall, token_in: int, token_out: int, matmul: Matmul = "float32"
) -> BlockJacobian:
    """The Jacobian of a block from one token of a prompt to another (or to itself).

    Args:
        call: a call on the whole prompt (`blocks.record_full`).
        token_in: t1, the input token.
        token_out: t2, the output token; for t2 < t1 a causal model's Jacobian is exactly zero.
        matmul: precision of the block's matrix products.

    Raises:
        ValueError: for tokens out of range.
    """
    tokens = call.input.shape[1]
    if not (0 <= token_in < tokens and 0 <= token_out < tokens):
        raise ValueError(f"tokens {token_in} → {token_out} of a prompt of {tokens}")
    states = point(call)
    before, after = states[:, :token_in], states[:, token_in + 1 :]

    def function(x: Tensor) -> Tensor:
        return call(torch.cat([before, x[:, None], after], dim=1))[:, token_out]

    operator = BlockJacobian(
        function,
        states[:, token_in],
        residual=token_in == token_out,
        tokens=tokens,
    )
    _demand_same_output(operator, call.output[:, token_out])
    return _lowered(operator, matmul)


def _eager(call: BlockCall) -> BlockJacobian:
    operator = BlockJacobian(
        lambda x: call(x[:, None])[:, 0],
        point(call)[:, 0],
        residual=True,
        tokens=1 + context_length(call),
    )
    _demand_same_output(operator, call.output[:, 0])
    return operator


def _demand_same_output(operator: BlockJacobian, output: Float[Tensor, "prompt embed"]) -> None:
    """Refuse a block that does not return its recorded output."""
    if not agreement.agree(operator.output, output):
        raise MeasurementError(f"the block, {UNREPEATABLE} ({WHY_UNREPEATABLE})")


def _one_token(calls: Sequence[BlockCall]) -> BlockJacobian | None:
    """The operator of all prompts with their context constant; None if that is not possible."""
    batch = merged(calls)
    context = None if batch is None else surroundings(calls)
    if batch is None or context is None:
        return None
    call = batch.with_cache(context)

    def function(x: Tensor) -> Tensor:
        with attend_to(context, call.block):
            return call(x[:, None])[:, 0]

    apart = len(calls) > 1 and call.input.shape[-1] >= batches.CUT_FROM
    try:
        operator = BlockJacobian(
            function,
            point(call)[:, 0],
            residual=True,
            repeats=len(calls) == 1,  # arguments of one prompt fit any number of copies
            alone=(lambda prompt: _one_token_of(calls[prompt])) if apart else None,
        )
    except (UnsupportedAttention, RuntimeError, TypeError, ValueError, IndexError) as error:
        # A block with an attention of its own fails in its own way with a cache that returns one
        # key; it is then measured with that attention.
        logger.debug("block keeps its own attention: %s", error)
        return None
    if not context.used_once:
        return None
    operator.attention = "one-token"
    return operator


def _one_token_of(call: BlockCall) -> BlockJacobian:
    operator = _one_token([call])
    assert operator is not None, "a prompt alone is not measured as it is in a batch"
    return operator


def _all_eager(calls: Sequence[BlockCall], matmul: Matmul) -> BlockJacobian | StackedOperator:
    own = [_lowered(_eager(call), matmul) for call in calls]
    return own[0] if len(own) == 1 else StackedOperator(own)


def _lowered(operator: BlockJacobian, matmul: Matmul) -> BlockJacobian:
    if matmul != "float32":
        operator.lower(matmul)
    return operator
