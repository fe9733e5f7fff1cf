"""All Jacobians of a block to one token of a prompt, from one backward pass for all of them.

J[t1, t2] = ∂f(X)_{t2}/∂x_{t1} for t1 ≤ t2 (arXiv 2407.07810, eq. 8). The tokens before t2 act on it
through their keys and values alone. So the block is first called on them, to fill its cache inside
the graph, and then on t2. A cotangent from t2 passes the wide layers once, for t2, and only the
key and value layers of the earlier tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blockcoupling.jacobian.batches import rows_at_once
from blockcoupling.jacobian.block_jacobian import Graph
from blockcoupling.jacobian.finite_differences import unchanged
from blockcoupling.transformer import agreement
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.caches import fresh
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.recording import CannotDecode, record_full, record_in_two

if TYPE_CHECKING:
    from jaxtyping import Float, Int

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ToToken:
    """The calls of all blocks that lead to one token t2 of a prompt.

    Attributes:
        token: t2.
        whole: each block's call on all tokens of the prompt.
        context: each block's call on tokens 0 … t2 − 1, with an empty cache; None for t2 = 0 and
            for models without a cache.
        own: each block's call on t2 alone, with the cache.
    """

    token: int
    whole: list[BlockCall]
    context: list[BlockCall] | None
    own: list[BlockCall] | None


def record_to_token(
    model: nn.Module,
    blocks: Blocks,
    ids: Int[Tensor, "1 token"],
    token: int | None = None,
    whole: list[BlockCall] | None = None,
) -> ToToken:
    """Record the calls that lead to a token of a prompt.

    Args:
        model: the model.
        blocks: its blocks.
        ids: the prompt, (1, token).
        token: t2; None: the last one.
        whole: the blocks' calls on the prompt, if they have been recorded.
    """
    token = ids.shape[1] - 1 if token is None else token
    whole = record_full(model, blocks, ids) if whole is None else whole
    if token == 0:
        return ToToken(token, whole, None, None)
    try:
        context, own = record_in_two(model, blocks, ids[:, : token + 1])
    except CannotDecode as error:
        logger.info("%s. Its tokens are measured by full forward passes.", error.reason)
        return ToToken(token, whole, None, None)
    return ToToken(token, whole, context, own)


def jacobians_to_token(
    calls: ToToken, block: int, tokens: Sequence[int]
) -> tuple[Float[Tensor, "token embed embed"], bool]:
    """J[t1, t2] of one block for each chosen t1 ≤ t2, minus the identity at t1 = t2.

    Args:
        calls: the calls that lead to t2.
        block: its index (0 …).
        tokens: the t1, ascending, none after t2.

    Returns:
        The Jacobians, rows = output, columns = input; and whether the cache was used, which
        requires that it gives the output and, for a random cotangent, the gradients of the call
        on the whole prompt.

    Raises:
        ValueError: the tokens do not ascend, or exceed t2.
    """
    if list(tokens) != sorted(set(tokens)) or not tokens or tokens[-1] > calls.token:
        raise ValueError(f"tokens {list(tokens)}: need ascending ones, up to {calls.token}")
    whole = calls.whole[block]
    index = torch.tensor(tokens, device=whole.input.device)
    point = whole.input[0, index]
    slow = _recorded(
        lambda x: whole(whole.input.index_copy(1, index, x[None]))[0, calls.token], point
    )
    graph = slow
    if calls.context is not None and calls.own is not None:
        fast = _through_cache(calls.context[block], calls.own[block], tokens, point)
        graph = fast if fast is not None and _agree(fast, slow) else slow
    d = point.shape[-1]
    rows = max(8, rows_at_once(d, 1 if graph is not slow else whole.input.shape[1]) // 2)
    unit = torch.eye(d, dtype=point.dtype, device=point.device)
    jacobians = point.new_empty(len(tokens), d, d)
    for start in range(0, d, rows):
        part = slice(start, start + rows)
        jacobians[:, part] = graph.vjp(unit[part]).transpose(0, 1)
    if tokens[-1] == calls.token:
        jacobians[-1].diagonal().sub_(1)
    return jacobians, graph is not slow


def truly_zero(calls: ToToken, block: int, token: int) -> bool:
    """Whether t2's state does not depend on t1's, so that a Jacobian of 0 is no lost gradient.

    Args:
        calls: the calls that lead to t2.
        block: its index (0 …).
        token: t1 ≤ t2.
    """
    whole = calls.whole[block]
    index = torch.tensor([token], device=whole.input.device)

    def function(x: Float[Tensor, "1 embed"]) -> Float[Tensor, "1 embed"]:
        return whole(whole.input.index_copy(1, index, x[None]))[:, calls.token]

    same = token == calls.token
    return bool(unchanged(function, whole.input[:, token], residual=same))


def _through_cache(
    context: BlockCall, own: BlockCall, tokens: Sequence[int], point: Float[Tensor, "token embed"]
) -> Graph | None:
    empty = context.cache()
    if empty is None:
        return None
    last = context.input.shape[1]
    earlier = torch.tensor([t for t in tokens if t < last], dtype=torch.long, device=point.device)

    def function(x: Float[Tensor, "token embed"]) -> Float[Tensor, " embed"]:
        cache = fresh(empty)
        context.into(context.input.index_copy(1, earlier, x[None, : len(earlier)]), cache)
        at = x[-1] if tokens[-1] == last else own.input[0, 0]
        return own.into(at[None, None], cache)[0, 0]

    try:
        return _recorded(function, point)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        # A cache that cannot be part of a graph: the full forward pass is used.
        logger.debug("the cache does not carry gradients: %s", error)
        return None


def _recorded(
    function: Callable[[Float[Tensor, "token embed"]], Float[Tensor, " embed"]],
    point: Float[Tensor, "token embed"],
) -> Graph:
    with torch.enable_grad():
        x = point.detach().clone().requires_grad_(True)
        return Graph(x, function(x))


def _agree(fast: Graph, slow: Graph) -> bool:
    """Whether two graphs have the same output and, for a random cotangent, the same gradients."""
    probe = agreement.random_like(slow.y)[None]
    mine, theirs = (graph.vjp(probe).flatten() for graph in (fast, slow))
    return agreement.agree(fast.y, slow.y) and agreement.agree(mine, theirs, agreement.GROWN)
