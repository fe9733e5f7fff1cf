"""Record the calls of all blocks while a prompt passes: at once, or its last token by decoding."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.caches import cache_tensors, fresh_cache
from blockcoupling.transformer.calls import BlockCall, hidden_state, place_of_hidden_state
from blockcoupling.transformer.running import run

if TYPE_CHECKING:
    from jaxtyping import Int


def record_calls(
    model: nn.Module, blocks: Blocks, input_ids: Int[Tensor, "1 token"], **kwargs: Any
) -> list[BlockCall]:
    """Record the call of every block during one forward pass without gradients.

    Args:
        model: the model.
        blocks: its blocks.
        input_ids: the tokens to pass, (1, token).
        kwargs: further arguments of the model's forward, where it knows them.

    Returns:
        The calls, first block to last.

    Raises:
        UserError: if a block updates its cache in place, so that its state before the call is lost.
    """
    return _record(model, blocks, input_ids, **kwargs)[0]


def _record(
    model: nn.Module, blocks: Blocks, input_ids: Int[Tensor, "1 token"], **kwargs: Any
) -> tuple[list[BlockCall], Any]:
    """The calls, and what the model returned."""
    calls: list[BlockCall] = []
    thread = threading.get_ident()  # other threads may be in the same blocks (`streaming`)
    before: list[tuple[Tensor, int]] = []
    pending: dict[int, tuple[Any, ...]] = {}

    # A hook that another thread has removed meanwhile is still called, but without kwargs.
    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict | None = None) -> None:
        if threading.get_ident() != thread or kwargs is None:
            return
        place = place_of_hidden_state(args, kwargs)
        assert place is not None
        hidden = args[place] if isinstance(place, int) else kwargs[place]
        kept_args = tuple(None if i == place else fresh_cache(v) for i, v in enumerate(args))
        kept = {k: None if k == place else fresh_cache(v) for k, v in kwargs.items()}
        for cache in (v for v in (*kept_args, *kept.values()) if isinstance(v, Cache)):
            before.extend((t, t._version) for t in cache_tensors(cache))
        pending[id(module)] = (kept_args, kept, place, hidden.detach())

    def leave(module: nn.Module, *arguments: Any) -> None:
        output = arguments[-1]
        if threading.get_ident() != thread:
            return
        kept_args, kept, place, hidden = pending.pop(id(module))
        result = hidden_state(output, like=hidden).detach()
        calls.append(BlockCall(module, kept_args, kept, place, hidden, result))

    with ExitStack() as hooks, torch.no_grad():
        for module in blocks.modules:
            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        output = run(model, input_ids, **kwargs)
    if any(tensor._version != version for tensor, version in before):
        raise UserError(
            f"{type(model).__name__} updates its cache in place: the state a block saw cannot be "
            "given to it again. Measure it with context='full'."
        )
    return calls, output


def record_full(
    model: nn.Module, blocks: Blocks, input_ids: Int[Tensor, "1 token"]
) -> list[BlockCall]:
    """Record every block's call on a whole prompt, all tokens at once."""
    return record_calls(model, blocks, input_ids, use_cache=False)


def record_decode(
    model: nn.Module, blocks: Blocks, input_ids: Int[Tensor, "1 token"]
) -> list[BlockCall]:
    """Record every block's call for the last token alone, its context held in the cache.

    A causal block's output at the last token depends on the tokens before it through their keys and
    values only, so one decode step gives the same-token Jacobian at a cost that does not grow with
    the prompt.

    Returns:
        The calls for the last token, first block to last.

    Raises:
        UserError: if the model has no cache to decode with.
    """
    return record_in_two(model, blocks, input_ids)[1]


def record_in_two(
    model: nn.Module, blocks: Blocks, input_ids: Int[Tensor, "1 token"]
) -> tuple[list[BlockCall], list[BlockCall]]:
    """Record the calls on the tokens before the last one, and then those of `record_decode`.

    Returns:
        The calls on tokens 0 … T − 2 together (none for a prompt of one token), and on T − 1.

    Raises:
        UserError: if the model has no cache to decode with.
    """
    if input_ids.shape[1] == 1:
        return [], record_calls(model, blocks, input_ids, use_cache=True)
    before, output = _record(model, blocks, input_ids[:, :-1], use_cache=True)
    past = getattr(output, "past_key_values", None)
    if not isinstance(past, Cache):
        raise UserError(
            f"{type(model).__name__} returns no key-value cache to decode with. Measure it "
            "with context='full'."
        )
    last = record_calls(model, blocks, input_ids[:, -1:], past_key_values=past, use_cache=True)
    return before, last
