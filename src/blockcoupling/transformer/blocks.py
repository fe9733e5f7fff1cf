"""Find the blocks of a transformer, and record what each of them is called with.

No architecture is named here. The blocks are the one `ModuleList` of the module tree through which
the residual stream passes in order: every member is called once, with the hidden state that the
member before it returned. A recorded call holds everything a block was given, so that the block can
be called again at exactly that point.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache

from blockcoupling.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_ONE_STREAM = "coupling is defined along one residual stream. Pass the submodel to be measured."


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model, first to last.

    Attributes:
        path: name of the module list in the model's module tree.
        modules: the blocks, in the order in which the residual stream passes them.
        dimension: d, the width of the residual stream.
    """

    path: str
    modules: tuple[nn.Module, ...]
    dimension: int

    def __len__(self) -> int:
        return len(self.modules)


@dataclass(frozen=True)
class BlockCall:
    """One recorded call of a block; everything but the hidden state stays as it was.

    Attributes:
        block: the module.
        args: positional arguments, the hidden state's place among them holding None.
        kwargs: keyword arguments, likewise.
        place: where the hidden state stands (a position or a keyword).
        input: the hidden state X^{l-1} the block was given, (1, token, d).
        output: the hidden state X^l it returned, (1, token, d).
    """

    block: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: int | str
    input: Float[Tensor, "prompt token embed"]
    output: Float[Tensor, "prompt token embed"]

    def __call__(
        self, hidden: Float[Tensor, "prompt token embed"], **changed: Any
    ) -> Float[Tensor, "prompt token embed"]:
        """Call the block again at another hidden state, every other argument as recorded.

        Args:
            hidden: the hidden state to put in the recorded one's place.
            changed: keyword arguments to put in place of recorded ones.
        """
        # A block writes into the cache it is given: hand it a fresh copy each time.
        args = [fresh_cache(value) for value in self.args]
        kwargs = {key: fresh_cache(value) for key, value in self.kwargs.items()} | changed
        if isinstance(self.place, int):
            args[self.place] = hidden
        else:
            kwargs[self.place] = hidden
        return _hidden_state(self.block(*args, **kwargs), like=hidden)

    def into(
        self, hidden: Float[Tensor, "prompt token embed"], cache: Cache
    ) -> Float[Tensor, "prompt token embed"]:
        """Call the block with this very cache, which it writes its keys and values into."""
        call = self.with_cache(cache)
        args, kwargs = list(call.args), dict(call.kwargs)
        if isinstance(call.place, int):
            args[call.place] = hidden
        else:
            kwargs[call.place] = hidden
        return _hidden_state(call.block(*args, **kwargs), like=hidden)

    def cache(self) -> Cache | None:
        """The key-value cache among the arguments, if there is one."""
        return next((v for v in (*self.args, *self.kwargs.values()) if isinstance(v, Cache)), None)

    def with_cache(self, cache: Any) -> BlockCall:
        """The same call with another object where the cache stands."""
        return replace(
            self,
            args=tuple(cache if isinstance(v, Cache) else v for v in self.args),
            kwargs={k: cache if isinstance(v, Cache) else v for k, v in self.kwargs.items()},
        )


@dataclass
class _Visit:
    """What a candidate block saw in one forward pass."""

    order: list[int] = field(default_factory=list)
    inputs: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)


def find_blocks(model: nn.Module, input_ids: Int[Tensor, "1 token"]) -> Blocks:
    """Find the blocks of a model by watching one forward pass.

    Args:
        model: any causal transformer that takes `input_ids`.
        input_ids: a short prompt, (1, token).

    Raises:
        UserError: if there is no such stack of at least two blocks, or more than one; the message
            says what was found instead.
    """
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 0
    }
    visits = {name: _Visit() for name in lists}

    def watch(name: str, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            visit = visits[name]
            visit.order.append(index)
            place = _place_of_hidden_state(args, kwargs)
            if place is not None:
                hidden = args[place] if isinstance(place, int) else kwargs[place]
                result = _hidden_state(output, like=hidden, missing_ok=True)
                if result is not None:
                    visit.inputs[index], visit.outputs[index] = hidden, result

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, members in lists.items():
            for index, member in enumerate(members):
                handle = member.register_forward_hook(watch(name, index), with_kwargs=True)
                hooks.callback(handle.remove)
        try:
            run(model, input_ids, use_cache=False)
        except ValueError as error:
            # Some encoder-decoders ask for the decoder's input as well, others go on without it.
            if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
                raise UserError(
                    f"{type(model).__name__} is an encoder-decoder: {_ONE_STREAM}"
                ) from error
            raise

    reasons = {name: _why_not_a_stack(visits[name], len(lists[name])) for name in lists}
    stacks = [name for name, why in reasons.items() if why is None]
    # Lists inside a block (experts, say) can look like a stack of their own: keep the outermost.
    stacks = [n for n in stacks if not any(n.startswith(outer + ".") for outer in stacks)]
    if len(stacks) > 1:
        raise UserError(
            f"{type(model).__name__} has {len(stacks)} stacks of blocks ({', '.join(stacks)}), as "
            f"an encoder-decoder has: {_ONE_STREAM}"
        )
    if not stacks:
        seen = "; ".join(f"{name}: {why}" for name, why in reasons.items() if visits[name].order)
        raise UserError(
            f"{type(model).__name__}: no stack of blocks was found that passes one hidden state "
            f"on. Seen instead: {seen or 'no module list that is called'}."
        )
    (path,) = stacks
    if len(lists[path]) < 2:
        raise UserError(
            f"{type(model).__name__} has 1 block ({path}): coupling compares blocks with each "
            "other and needs at least two."
        )
    return Blocks(path, tuple(lists[path]), int(visits[path].inputs[0].shape[-1]))


def _why_not_a_stack(visit: _Visit, length: int) -> str | None:
    """Say why the members of a module list do not pass one residual stream on (None if they do)."""
    if visit.order != list(range(length)):
        return f"its {length} members are called in the order {visit.order[:8]}, not once each"
    if len(visit.inputs) < length:
        return "not every member takes and returns a hidden state of one shape (1, token, d)"
    for index in range(1, length):
        before, after = visit.outputs[index - 1], visit.inputs[index]
        # NaN, of a broken weight, is passed on like any number; it is reported when measured.
        if not torch.equal(before.nan_to_num(), after.nan_to_num()):
            return f"the hidden state is changed between blocks {index} and {index + 1}"
    return None


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
        place = _place_of_hidden_state(args, kwargs)
        assert place is not None
        hidden = args[place] if isinstance(place, int) else kwargs[place]
        kept_args = tuple(None if i == place else fresh_cache(v) for i, v in enumerate(args))
        kept = {k: None if k == place else fresh_cache(v) for k, v in kwargs.items()}
        for cache in (v for v in (*kept_args, *kept.values()) if isinstance(v, Cache)):
            before.extend((t, t._version) for t in _cache_tensors(cache))
        pending[id(module)] = (kept_args, kept, place, hidden.detach())

    def leave(module: nn.Module, *arguments: Any) -> None:
        output = arguments[-1]
        if threading.get_ident() != thread:
            return
        kept_args, kept, place, hidden = pending.pop(id(module))
        result = _hidden_state(output, like=hidden).detach()
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


def fresh_cache(value: Any) -> Any:
    """A copy of a cache that shares its tensors; anything else is returned as it is.

    A cache layer replaces its tensors when it is updated, so copying the objects that hold them
    is enough to keep the state before the update (`record_calls` checks that it is so).
    """
    if not isinstance(value, Cache):
        return value
    copied = copy.copy(value)
    if hasattr(value, "layers"):
        copied.layers = [copy.copy(layer) for layer in value.layers]
    return copied


def run(model: nn.Module, input_ids: Int[Tensor, "1 token"], **kwargs: Any) -> Any:
    """Pass tokens through a model, but not through the head on top of it (the vocabulary is wide).

    Args:
        model: the model; where it has a `base_model`, that is called.
        input_ids: (1, token).
        kwargs: further arguments, passed on where the forward names them.
    """
    base = getattr(model, "base_model", model)
    names = inspect.signature(base.forward).parameters
    named = {key: value for key, value in kwargs.items() if key in names}
    return base(input_ids=input_ids, **named)


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Put a model into a state in which its blocks can be differentiated twice, for a while.

    Evaluation mode (no dropout), and the plain PyTorch implementations of attention and of
    mixtures of experts: the fused ones lack second derivatives, or float64, on some devices.
    """
    plain = {"_attn_implementation": "eager", "_experts_implementation": "eager"}
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if getattr(module, "config", None) is not None
    }
    before = [
        (config, name, getattr(config, name))
        for config in configs.values()
        for name in plain
        if hasattr(config, name)
    ]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for config, name, _ in before:
            setattr(config, name, plain[name])
        yield
    finally:
        for config, name, value in before:
            setattr(config, name, value)
        for module, training in modes:
            module.training = training


def _cache_tensors(cache: Cache) -> Iterator[Tensor]:
    for layer in getattr(cache, "layers", ()):
        for value in vars(layer).values():
            if isinstance(value, Tensor):
                yield value


def _is_hidden_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point()


def _place_of_hidden_state(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str | None:
    """Where the hidden state stands among a block's arguments: the first (batch, token, d)."""
    for index, value in enumerate(args):
        if _is_hidden_state(value):
            return index
    return next((key for key, value in kwargs.items() if _is_hidden_state(value)), None)


def _hidden_state(output: Any, like: Tensor, missing_ok: bool = False) -> Any:
    """The hidden state among what a block returned: the first tensor shaped like its input."""
    candidates = output if isinstance(output, tuple | list) else (output,)
    for value in candidates:
        if _is_hidden_state(value) and value.shape == like.shape:
            return value
    if missing_ok:
        return None
    raise UserError("a block returned no hidden state of its input's shape")
