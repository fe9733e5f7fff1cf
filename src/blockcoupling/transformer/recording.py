"""Record the calls of all blocks in a forward pass of a prompt, or of its last token alone."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.caches import fresh, tensors_in
from blockcoupling.transformer.calls import BlockCall, hidden_state, place_of_hidden_state
from blockcoupling.transformer.running import Given, run

if TYPE_CHECKING:
    from jaxtyping import Int


class CannotDecode(UserError):
    """A model cannot decode, or not so that its blocks can be called again.

    Args:
        model: the model.
        reason: the predicate of the message, after the model's name.
    """

    def __init__(self, model: nn.Module, reason: str) -> None:
        self.reason = f"{type(model).__name__} {reason}"
        super().__init__(f"{self.reason}. Measure it with context='full'.")


def record_calls(model: nn.Module, blocks: Blocks, given: Given, **kwargs: Any) -> list[BlockCall]:
    """Record the call of every block during one forward pass without gradients.

    Args:
        model: the model.
        blocks: its blocks.
        given: token ids, (1, token), or an image's pixel values.
        kwargs: further arguments for the model's forward (`running.run`).

    Returns:
        The calls, first block to last.

    Raises:
        CannotDecode: a block writes into its arguments, so that its state before the call is lost.
    """
    return _record(model, blocks, given, **kwargs)[0]


def _record(
    model: nn.Module, blocks: Blocks, given: Given, *, again: bool = True, **kwargs: Any
) -> tuple[list[BlockCall], Any]:
    """The calls, and what the model returned; without `again`, for their states only."""
    name = type(model).__name__
    calls: list[BlockCall] = []
    thread = threading.get_ident()  # other threads may be in the same blocks (`streaming`)
    before: list[tuple[Tensor, int]] = []
    pending: dict[int, tuple[Any, ...]] = {}

    # A hook that another thread has removed in the meantime is still called, without kwargs.
    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict | None = None) -> None:
        if threading.get_ident() != thread or kwargs is None:
            return
        place = place_of_hidden_state(args, kwargs)
        if place is None:
            raise UserError(f"{name} calls a block without a hidden state")
        hidden = args[place] if isinstance(place, int) else kwargs[place]
        kept_args, kept = fresh(
            (
                tuple(None if i == place else value for i, value in enumerate(args)),
                {key: None if key == place else value for key, value in kwargs.items()},
            )
            if again
            else ((), {})
        )
        before.extend((t, t._version) for t in tensors_in((kept_args, kept, hidden)))
        pending[id(module)] = (kept_args, kept, place, hidden.detach())

    def leave(module: nn.Module, *arguments: Any) -> None:
        output = arguments[-1]
        if threading.get_ident() != thread:
            return
        kept_args, kept, place, hidden = pending.pop(id(module))
        result = hidden_state(output, like=hidden).detach()
        calls.append(BlockCall(module, kept_args, kept, place, hidden, result))

    with ExitStack() as hooks, torch.no_grad():
        for module in set(blocks.modules):  # one may be several blocks
            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        output = run(model, given, **kwargs)
    if [id(call.block) for call in calls] != [id(module) for module in blocks.modules]:
        raise CannotDecode(model, "does not call each of its blocks once, in order")
    if any(tensor._version != version for tensor, version in before):
        raise CannotDecode(model, "updates its state in place: its blocks cannot be called again")
    return calls, output


def record_full(model: nn.Module, blocks: Blocks, given: Given) -> list[BlockCall]:
    """Record every block's call on all tokens of a prompt or image.

    Raises:
        UserError: the blocks cannot be called again, or see other tokens than the prompt's.
    """
    return record_whole(model, blocks, given)[0]


def record_whole(
    model: nn.Module, blocks: Blocks, given: Given, *, every_logit: bool = False
) -> tuple[list[BlockCall], Any]:
    """The calls of `record_full`, and what the model returned (`running.run`).

    Raises:
        UserError: as there.
    """
    name = type(model).__name__
    try:
        calls, output = _record(model, blocks, given, every_logit=every_logit, use_cache=False)
    except CannotDecode as error:
        raise UserError(f"{error.reason}, even without a cache. It cannot be measured.") from error
    image = given.is_floating_point()
    tokens = calls[0].input.shape[1] if image else given.shape[1]
    for call in calls:
        if call.input.shape[:2] != (1, tokens):
            why = (
                "one image: it does not arrange its tokens as (1, token, d). It cannot be measured."
                if image
                else f"a prompt of {tokens} tokens: it adds tokens of its own (as prompt tuning "
                "does), or does not arrange them as (1, token, d). Pass a model that does not."
            )
            shape = tuple(call.input.shape)
            raise UserError(f"{name} passes hidden states of shape {shape} to its blocks for {why}")
    return calls, output


def record_decode(
    model: nn.Module, blocks: Blocks, input_ids: Int[Tensor, "1 token"]
) -> list[BlockCall]:
    """Record every block's call on the last token alone, with its context in the cache.

    A causal block's output at the last token depends on the tokens before it through their keys and
    values only, so one decode step gives the same-token Jacobian at a cost that does not grow with
    the prompt.

    Raises:
        CannotDecode: the model has no cache to decode with, or fails on the way.
    """
    return record_in_two(model, blocks, input_ids)[1]


def record_in_two(
    model: nn.Module,
    blocks: Blocks,
    input_ids: Int[Tensor, "prompt token"],
    *,
    context_again: bool = True,
) -> tuple[list[BlockCall], list[BlockCall]]:
    """Record the calls on the tokens before the last one, and then those of `record_decode`.

    Args:
        model: the model.
        blocks: its blocks.
        input_ids: prompts of one length, none of it padding.
        context_again: whether the calls on the context will be called again; otherwise they have
            states and no arguments, which takes less time.

    Returns:
        The calls on tokens 0 … T − 2 together (none for a prompt of one token), and on T − 1.

    Raises:
        CannotDecode: the model has no cache to decode with, or fails on the way.
    """
    before: list[BlockCall] = []
    cached: dict[str, Any] = {"use_cache": True}
    try:
        if input_ids.shape[1] > 1:
            before, output = _record(
                model, blocks, input_ids[:, :-1], again=context_again, **cached
            )
            # The name of Transformers 5.24, and that of versions and models before it.
            names = ("cache", "past_key_values")
            own = [name for name in names if isinstance(getattr(output, name, None), Cache)]
            if not own:
                raise CannotDecode(model, "returns no key-value cache to decode with")
            cached[own[0]] = getattr(output, own[0])
        last = record_calls(model, blocks, input_ids[:, -1:], **cached)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Every kind of cache fails in its own way when it lacks something.
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CannotDecode(model, f"fails while its last token is decoded ({why})") from error
    if any(call.input.shape[:2] != (len(input_ids), 1) for call in last):
        raise CannotDecode(model, "passes more than the decoded token to its blocks")
    return before, last
