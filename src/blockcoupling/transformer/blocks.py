"""Find the blocks of a transformer by what they do.

No architecture is named here. The blocks are the one `ModuleList` of the module tree through which
the residual stream passes in order: every member is called once, with the hidden state that the
previous member returned. Where no `ModuleList` is like that, a `Sequential` or `ModuleDict` may be
whose members are of one class and consist of modules themselves: layers that only follow each
other, in a head or an embedding, are not blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.agreement import identical
from blockcoupling.transformer.calls import hidden_state, place_of_hidden_state
from blockcoupling.transformer.running import Given, run

if TYPE_CHECKING:
    from jaxtyping import Float

_ONE_STREAM = (
    "coupling is defined along one residual stream. Pass the submodel to measure, one that runs "
    "on its own."
)


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model, first to last.

    Attributes:
        path: name of the module list in the model's module tree.
        modules: the blocks, in the order in which the residual stream passes them; one that it
            passes several times in a row counts as that many blocks.
        dimension: d, the width of the residual stream.
    """

    path: str
    modules: tuple[nn.Module, ...]
    dimension: int

    def __len__(self) -> int:
        return len(self.modules)


@dataclass
class _Visit:
    """The calls of a candidate's members in one forward pass."""

    order: list[int] = field(default_factory=list)
    inputs: list[Tensor | None] = field(default_factory=list)
    outputs: list[Tensor | None] = field(default_factory=list)
    streams: int = 0

    @property
    def reached(self) -> bool:
        """Whether a member has received a hidden state."""
        return any(hidden is not None for hidden in self.inputs)

    @property
    def width(self) -> int:
        """Width of the first member's hidden state."""
        assert self.inputs[0] is not None
        return int(self.inputs[0].shape[-1])


def find_blocks(model: nn.Module, given: Given, stage: int | None = None) -> Blocks:
    """The blocks that `watch_blocks` finds."""
    return watch_blocks(model, given, stage)[0]


def watch_blocks(
    model: nn.Module, given: Given, stage: int | None = None
) -> tuple[Blocks, list[Float[Tensor, "1 token embed"]]]:
    """Find the blocks of a model by watching one forward pass.

    Args:
        model: any transformer that takes `input_ids` or `pixel_values`.
        given: a short prompt's token ids, (1, token), or an image's pixel values.
        stage: number of the stack (1 …) of a model with several consecutive stacks of blocks.

    Returns:
        The blocks, and the hidden state after each.

    Raises:
        UserError: there is not exactly one stack of at least two blocks; the message says what was
            found instead.
    """
    lists = {
        name: [member for member in module._modules.values() if member is not None]
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) or _is_chain(module)
    }
    lists = {name: members for name, members in lists.items() if members}
    visits = {name: _Visit() for name in lists}
    tokens = None if given.is_floating_point() else given.shape[1]

    def watch(name: str, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            visit = visits[name]
            visit.order.append(index)
            place = place_of_hidden_state(args, kwargs)
            if tokens is not None:
                visit.streams = max(visit.streams, _streams(args, kwargs, tokens))
            hidden = result = None
            if place is not None:
                hidden = args[place] if isinstance(place, int) else kwargs[place]
                result = hidden_state(output, like=hidden, missing_ok=True)
            visit.inputs.append(hidden)
            visit.outputs.append(result)

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, members in lists.items():
            for index, member in enumerate(members):
                handle = member.register_forward_hook(watch(name, index), with_kwargs=True)
                hooks.callback(handle.remove)
        with explained(model, given):
            run(model, given, use_cache=False)

    reasons = {name: _why_not_a_stack(visits[name], len(lists[name])) for name in lists}
    stacks = [name for name, why in reasons.items() if why is None]
    # Lists inside a block (of experts, for example) can look like a stack: keep the outermost.
    stacks = [n for n in stacks if not any(n.startswith(outer + ".") for outer in stacks)]
    # Members that are called one after the other are a stack by themselves: no proof of blocks.
    chains = tuple(f"{name}." for name in stacks if _is_chain(model.get_submodule(name)))
    others = [name for name in lists if not _is_chain(model.get_submodule(name))]
    if any(visits[name].reached and not name.startswith(chains) for name in others):
        stacks = [name for name in stacks if f"{name}." not in chains]
    if stage is not None:
        if not 1 <= stage <= len(stacks) or len(stacks) == 1:
            found = f"{len(stacks)} stacks" if len(stacks) != 1 else "one stack"
            raise UserError(
                f"stage {stage}: {type(model).__name__} has {found} of blocks"
                + (f"; choose 1 … {len(stacks)}" if len(stacks) > 1 else "; leave stage out")
            )
        stacks = [stacks[stage - 1]]
    widths = [visits[name].width for name in stacks]
    if len(set(widths)) > 1:
        shown = ", ".join(f"{name}: {width}" for name, width in zip(stacks, widths, strict=True))
        raise UserError(
            f"{type(model).__name__} is hierarchical: its residual stream changes its width from "
            f"stage to stage ({shown}), and Jacobians of different widths cannot be compared. "
            f"Measure one stage: stage = 1 … {len(stacks)}."
        )
    if len(stacks) > 1:
        raise UserError(
            f"{type(model).__name__} has {len(stacks)} stacks of blocks ({', '.join(stacks)}), "
            f"like an encoder-decoder: {_ONE_STREAM}"
        )
    if not stacks:
        seen = "; ".join(f"{name}: {why}" for name, why in reasons.items() if visits[name].order)
        raise UserError(
            f"{type(model).__name__}: no stack of blocks with one residual stream was found. "
            f"Found instead: {seen or 'no module list that is called'}."
        )
    (path,) = stacks
    order = visits[path].order
    if len(order) < 2:
        raise UserError(
            f"{type(model).__name__} has 1 block ({path}): coupling compares blocks and needs at "
            "least two."
        )
    states = [state for state in visits[path].outputs if state is not None]
    return Blocks(path, tuple(lists[path][index] for index in order), widths[0]), states


@contextmanager
def explained(model: nn.Module, given: Given) -> Iterator[None]:
    """A context for running a model, in which an error says what the model cannot be run on.

    Raises:
        UserError: the body raised an error of the model's.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Some encoder-decoders need the decoder's input as well, others run without it.
        name = type(model).__name__
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            raise UserError(f"{name} is an encoder-decoder: {_ONE_STREAM}") from error
        why = (next(iter(str(error).splitlines()), "") or type(error).__name__).rstrip(".")
        if given.is_floating_point():
            shape = " × ".join(str(n) for n in given.shape[1:])
            raise UserError(
                f"{name} cannot be run on an image of {shape} (channel, height, width) alone: "
                f"{why}. Pass preprocessed images, and a model that needs pixel_values and "
                "nothing else (the vision tower of a model with two)."
            ) from error
        raise UserError(
            f"{name} cannot be run on a prompt's token ids alone: {why}. Pass a "
            "model that needs input_ids and nothing else."
        ) from error


def _is_chain(module: nn.Module) -> bool:
    """Whether a module holds several others of one class, which consist of modules themselves."""
    members = list(module._modules.values())
    return (
        isinstance(module, nn.Sequential | nn.ModuleDict)
        and len(members) > 1
        and len({type(member) for member in members}) == 1
        and all(member is not None and member._modules for member in members)
    )


def _why_not_a_stack(visit: _Visit, length: int) -> str | None:
    """Why the members of a module list do not form one residual stream; None if they do."""
    if visit.streams > 1:
        return f"its members have {visit.streams} parallel residual streams, not one"
    # A member that is called again at once is another block, as in models that share weights.
    if visit.order != sorted(visit.order) or set(visit.order) != set(range(length)):
        skipped = sorted(set(range(length)) - set(visit.order))
        if visit.order and visit.order == sorted(set(visit.order)):
            numbers = ", ".join(str(index + 1) for index in skipped[:8])
            return f"its members {numbers} of {length} are skipped"
        return f"its {length} members are called in the order {visit.order[:8]}, not once each"
    if any(result is None for result in visit.outputs):
        return "not every member takes and returns a hidden state of shape (1, token, d)"
    for index in range(1, len(visit.order)):
        before, after = visit.outputs[index - 1], visit.inputs[index]
        assert before is not None
        assert after is not None
        if not identical(before, after):
            return f"the hidden state is changed between blocks {index} and {index + 1}"
    return None


def _streams(args: tuple[Any, ...], kwargs: dict[str, Any], tokens: int) -> int:
    """How many hidden states of all tokens a block receives in one array of four axes."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point():
            if value.ndim != 4 or tokens not in value.shape[:-1]:
                return 0
            return value[..., 0].numel() // tokens
    return 0
