"""Temporary exchange of weights between blocks, and which blocks can be exchanged.

A block keeps what belongs to its position (layer index, attention window). Its parameters and the
buffers that are saved with them are exchanged. No architecture is named: two blocks can be
exchanged if they have the same modules, shapes and settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from blockcoupling.transformer.agreement import identical
from blockcoupling.transformer.blocks import Blocks

_PLAIN = (bool, int, float, str, type(None), torch.dtype)
_NOT_COMPARED = ("training",)


def why_unlike(blocks: Blocks, i: int, j: int) -> str | None:
    """Return why the weights of two blocks cannot be exchanged; None if they can.

    Args:
        blocks: of a model.
        i: index of one, from 0.
        j: index of the other.
    """
    if shared := _shared(blocks, i) or _shared(blocks, j):
        return shared
    one, other = (dict(blocks.modules[n].named_modules()) for n in (i, j))
    a, b = i + 1, j + 1
    if (first := _differing(set(one), set(other))) is not None:
        return f"only one of blocks {a} and {b} has a part {first}"
    for path, module in one.items():
        if (problem := _unlike(module, other[path], i - j)) is not None:
            return f"blocks {a} and {b} differ in {f'{path}.' if path else ''}{problem}"
    return None


def _shared(blocks: Blocks, index: int) -> str | None:
    """Return an error message if a block shares a module with another block."""
    own = {id(m) for m in blocks.modules[index].modules() if _weights_of(m)}
    for other, module in enumerate(blocks.modules):
        if other != index and any(id(part) in own for part in module.modules()):
            return (
                f"block {index + 1} shares a part with block {other + 1}, so that its weights "
                "cannot be changed at one place only"
            )
    return None


def _differing(one: set[str], other: set[str]) -> str | None:
    return min(one ^ other, default=None)


def _unlike(module: nn.Module, other: nn.Module, apart: int) -> str | None:
    """Return the first difference between two modules: class, weights or settings."""
    if type(module) is not type(other):
        return f"class ({type(module).__name__}, {type(other).__name__})"
    mine, theirs = _weights_of(module), _weights_of(other)
    if (leaf := _differing(set(mine), set(theirs))) is not None:
        return f"{leaf} (only one has it)"
    for leaf, tensor in mine.items():
        if tensor.shape != theirs[leaf].shape:
            return f"{leaf} (shapes {tuple(tensor.shape)}, {tuple(theirs[leaf].shape)})"
    for leaf in module._buffers.keys() - mine.keys():
        if not _same(module._buffers[leaf], other._buffers.get(leaf)):
            return f"{leaf} (a buffer with other values)"
    a, b = _settings(module), _settings(other)
    for name in sorted(a.keys() | b.keys()):
        one, two = a.get(name), b.get(name)
        # A number that counts the blocks belongs to the position.
        counts = type(one) is int and type(two) is int and one - two == apart
        if one != two and not counts:
            return f"{name} ({one}, {two})"
    return None


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return identical(one, other)


def _settings(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in _NOT_COMPARED and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers of a module itself, by name."""
    kept = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
    return {n: t for n, t in {**module._parameters, **kept}.items() if t is not None}


def weights_of(block: nn.Module) -> dict[tuple[str, str], Tensor]:
    """All weights of a block, by the path of their module and their name in it."""
    return {
        (path, leaf): tensor
        for path, module in block.named_modules()
        for leaf, tensor in _weights_of(module).items()
    }


@contextmanager
def placed(blocks: Blocks, sources: Mapping[int, Sequence[int]]) -> Iterator[None]:
    """Use the weights of other blocks at some positions, within a `with` statement.

    Args:
        blocks: of a model in memory.
        sources: position → blocks (indices from 0) whose weights are used there; the mean of
            several.
    """
    before = {index: weights_of(module) for index, module in enumerate(blocks.modules)}
    made = {
        indices: mean_weights([before[index] for index in indices])
        for indices in set(map(tuple, sources.values()))
    }
    try:
        for place, used in sources.items():
            _put(blocks.modules[place], made[tuple(used)])
        yield
    finally:
        for place in sources:
            _put(blocks.modules[place], before[place])


def mean_weights(
    several: Sequence[Mapping[tuple[str, str], Tensor]],
) -> dict[tuple[str, str], Tensor]:
    """Return the mean of the weights of several blocks; the same tensors for one block."""
    if len(several) == 1:
        return dict(several[0])
    return {
        name: torch.stack([weights[name].detach() for weights in several]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in several[0].items()
    }


def _put(block: nn.Module, weights: Mapping[tuple[str, str], Tensor]) -> None:
    modules = dict(block.named_modules())
    for (path, leaf), tensor in weights.items():
        owner = modules[path]
        if leaf in owner._parameters:
            kept = isinstance(tensor, nn.Parameter)
            owner._parameters[leaf] = tensor if kept else nn.Parameter(tensor, requires_grad=False)
        else:
            owner._buffers[leaf] = tensor
