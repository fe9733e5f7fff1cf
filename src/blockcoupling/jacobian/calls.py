"""Recorded calls of a block where it is linearized, and several prompts' calls as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.transformer.attention import Context, Surroundings, UnsupportedAttention
from blockcoupling.transformer.bidirectional import AloneCall, Others
from blockcoupling.transformer.caches import tensors_in
from blockcoupling.transformer.calls import BlockCall

if TYPE_CHECKING:
    from jaxtyping import Float


def point(call: BlockCall) -> Float[Tensor, "prompt token embed"]:
    """The state at which a block is linearized, on the block's own device."""
    return call.input.to(call.output.device)


def context_length(call: BlockCall) -> int:
    """How many other tokens a call on one token attends to."""
    if isinstance(call, AloneCall):
        return call.attended.keys.shape[2] - 1
    held = tensors_in(call.cache())
    return max((tensor.shape[-2] for tensor in held if tensor.ndim == 4), default=0)


def surroundings(calls: Sequence[BlockCall]) -> Surroundings | None:
    """What the tokens of several calls attend to, as constants; None if that is unknown.

    Args:
        calls: of one token each, all with a cache or all among other tokens.
    """
    others = [call for call in calls if isinstance(call, AloneCall)]
    if len(others) == len(calls):
        return Others(others)
    caches = [cache for cache in (call.cache() for call in calls) if hasattr(cache, "layers")]
    return Context([c for c in caches if c is not None]) if len(caches) == len(calls) else None


def merged(calls: Sequence[BlockCall]) -> BlockCall | None:
    """One call for several prompts; None if their arguments do not form a batch."""
    calls = [call.bare() if isinstance(call, AloneCall) else call for call in calls]
    first = calls[0]
    if len(calls) == 1:
        return first
    try:
        args = tuple(_batched([c.args[i] for c in calls]) for i in range(len(first.args)))
        kwargs = {key: _batched([c.kwargs[key] for c in calls]) for key in first.kwargs}
    except UnsupportedAttention:
        return None
    return replace(
        first,
        args=args,
        kwargs=kwargs,
        input=torch.cat([c.input for c in calls]),
        output=torch.cat([c.output for c in calls]),
    )


def _batched(values: list) -> object:
    """One argument of several calls, joined along the batch."""
    first = values[0]
    if isinstance(first, Tensor):
        if first.ndim == 4 and all(not v.any() for v in values) and first.is_floating_point():
            return None  # a mask that hides nothing; the context's bias hides the padding
        if first.ndim == 0 or any(v.shape != first.shape for v in values):
            raise UnsupportedAttention("arguments of different shapes")
        if all(torch.equal(v, first) for v in values) and first.shape[0] != 1:
            return first
        if first.shape[0] != 1:
            raise UnsupportedAttention("an argument without a batch dimension")
        return torch.cat(values)
    if isinstance(first, tuple | list):
        return tuple(_batched([v[i] for v in values]) for i in range(len(first)))
    plain = first is None or isinstance(first, bool | int | float | str)
    if plain and any(v != first for v in values):
        raise UnsupportedAttention("arguments that differ between prompts")
    return first
