"""The two halves of a block: its attention alone, and its MLP alone.

A block is x ↦ x + attention + MLP. A half is the block itself with the output of the other half set
to zero, so that everything around it (norms, scaling, gates) is included and no architecture is
named: the two modules are those without which the block returns its input unchanged. Attention is
the one that moves information between tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.agreement import agree
from blockcoupling.transformer.calls import BlockCall

if TYPE_CHECKING:
    from jaxtyping import Float


class HalfBlock(nn.Module):
    """A block without the output of one of its modules, called with the block's own arguments."""

    def __init__(self, block: nn.Module, without: nn.Module) -> None:
        super().__init__()
        self.block, self.without = block, without

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the block returns if the module's output is zero."""
        with _silent(self.without):
            return self.block(*args, **kwargs)


@dataclass(frozen=True)
class Halves:
    """How a block is divided.

    Attributes:
        attention: the block without its MLP.
        mlp: the block without its attention.
        parallel: whether the MLP reads the block's input; otherwise the state after attention.
    """

    attention: HalfBlock
    mlp: HalfBlock
    parallel: bool

    def call(self, whole: BlockCall, part: str) -> BlockCall:
        """The call of one half, from the block's: at the block's input, or after its attention.

        Args:
            whole: a recorded call of the block.
            part: "attention" or "mlp".

        Raises:
            UserError: the halves do not add up to the block at this call.
        """
        with torch.no_grad():
            attention = _called(whole, self.attention, whole.input)
            where = whole.input if self.parallel else attention.output
            mlp = _called(whole, self.mlp, where)
            both = mlp.output + attention.output - where
        if not agree(both, whole.output, carried=whole.input.to(whole.output)):
            raise UserError("its attention and its MLP do not add up to the block")
        return attention if part == "attention" else mlp


def find_halves(calls: Sequence[BlockCall]) -> list[Halves]:
    """The halves of all blocks.

    Args:
        calls: of each block, on at least two tokens.

    Raises:
        UserError: a block that is not x + attention + MLP; the message says which and why.
    """
    found = []
    alike: dict[tuple[str, ...], tuple[str, str]] = {}  # blocks of the same modules
    for index, call in enumerate(calls):
        modules = tuple(name for name, _ in call.block.named_modules())
        with torch.no_grad():
            pair = _pair(call, alike.get(modules))
            halves = None if pair is None else _divided(call, *pair)
        if pair is None or halves is None:
            raise UserError(
                f"block {index + 1} ({type(call.block).__name__}) is not the sum of its input, an "
                "attention and an MLP (a norm comes after the sum, or there is one half only), so "
                "its parts have no Jacobians of their own. Leave `parts` out for this model."
            )
        alike[modules] = pair
        found.append(halves)
    return found


def _pair(call: BlockCall, first: tuple[str, str] | None) -> tuple[str, str] | None:
    """Names of two modules without which a block returns its input, and that both matter."""
    if first is not None and _empty_without(call, *first):
        return first
    candidates = [name for name in _hidden_states_from(call) if _matters(call, name)]
    pairs = combinations(candidates, 2)
    return next((pair for pair in pairs if _empty_without(call, *pair)), None)


def _divided(call: BlockCall, one: str, other: str) -> Halves | None:
    """The halves that two modules make; None where they do not add up to the block."""
    module = call.block.get_submodule
    halves = [HalfBlock(call.block, without=module(name)) for name in (one, other)]
    mixing = [_mixes_tokens(call, half) for half in halves]
    if mixing not in ([True, False], [False, True]):
        return None
    attention, mlp = halves if mixing[0] else halves[::-1]
    for parallel in (False, True):
        divided = Halves(attention, mlp, parallel)
        try:
            divided.call(call, "mlp")
        except UserError:
            continue
        return divided
    return None


def _hidden_states_from(call: BlockCall) -> list[str]:
    """Names of the modules in a block that return a hidden state, the largest first."""
    seen: dict[nn.Module, bool] = {}

    def watch(module: nn.Module, args: Any, output: Any) -> None:
        state = _first_tensor(output)
        # Some blocks flatten prompts and tokens into one axis.
        size = None if state is None else (state.numel(), state.shape[-1])
        fits = size == (call.input.numel(), call.input.shape[-1])
        seen[module] = fits and module not in seen  # once

    with ExitStack() as hooks:
        for module in call.block.modules():
            hooks.callback(module.register_forward_hook(watch).remove)
        call(call.input)
    named = [(name, module) for name, module in call.block.named_modules() if name]
    named.sort(key=lambda each: -sum(p.numel() for p in each[1].parameters()))
    return [name for name, module in named if seen.get(module)]


def _matters(call: BlockCall, name: str) -> bool:
    """Whether a block without a module returns neither what it does, nor its input."""
    with _silent(call.block.get_submodule(name)):
        left = call(call.input)
    return not agree(left, call.output, carried=call.input) and not _same(left, call.input)


def _empty_without(call: BlockCall, one: str, other: str) -> bool:
    """Whether a block without two modules returns its input."""
    state = 2 * call.input  # of another size: a norm after the sum would change it back
    with _silent(call.block.get_submodule(one)), _silent(call.block.get_submodule(other)):
        return _same(call(state), state)


def _mixes_tokens(call: BlockCall, half: HalfBlock) -> bool:
    """Whether the last token's output depends on the other tokens' states."""
    changed = call.input.clone()
    changed[:, :-1] = changed[:, :-1].flip(-1)
    outputs = [replace(call, block=half)(state)[:, -1] for state in (call.input, changed)]
    return not agree(outputs[1], outputs[0], carried=call.input[:, -1])


def _called(whole: BlockCall, half: HalfBlock, where: Float[Tensor, "prompt token embed"]) -> Any:
    call = replace(whole, block=half, input=where)
    return replace(call, output=call(where.to(whole.output.device)).detach())


def _same(one: Tensor, other: Tensor) -> bool:
    return agree(one, other, carried=other)


@contextmanager
def _silent(module: nn.Module) -> Iterator[None]:
    """A context in which a module returns a hidden state of zeros."""

    def zeros(module: nn.Module, args: Any, output: Any) -> Any:
        state = _first_tensor(output)
        if state is output or state is None:
            return torch.zeros_like(output)
        parts = [torch.zeros_like(state) if v is state else v for v in output]
        return type(output)._make(parts) if hasattr(output, "_make") else type(output)(parts)

    handle = module.register_forward_hook(zeros)
    try:
        yield
    finally:
        handle.remove()


def _first_tensor(output: Any) -> Tensor | None:
    parts = output if isinstance(output, tuple | list) else (output,)
    return next((v for v in parts if isinstance(v, Tensor) and v.is_floating_point()), None)
