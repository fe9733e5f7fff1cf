"""Copies of a block's arguments, so that it can be called again from the same state.

Arguments may hold caches of keys and values, states of convolutions and of linear attention, or
objects of any other kind. A copy is deep in structure (lists, dictionaries, objects) and shares the
tensors: that no call writes into them is checked when calls are recorded.
"""

from __future__ import annotations

import copy
from functools import cache
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig


class Shared:
    """Base of objects that a block receives as they are, never as copies."""


# What a call does not change, or what is to be shared.
_SHARED = (
    Shared,
    Tensor,
    nn.Module,
    PretrainedConfig,
    type,
    FunctionType,
    MethodType,
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    torch.dtype,
    torch.device,
    torch.Generator,
)


def fresh(value: Any, known: dict[int, Any] | None = None) -> Any:
    """A copy of an argument, deep in its structure, that shares its tensors.

    Args:
        value: the argument.
        known: copies so far, by the `id` of the original, so that an object that two arguments
            share is one object in their copies, too.
    """
    kind = value.__class__
    if _is(kind, _SHARED):
        return value
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)]
    if _is(kind, (tuple, frozenset)):
        parts = [fresh(part, known) for part in value]
        made = type(value)._make(parts) if hasattr(value, "_make") else type(value)(parts)
        return known.setdefault(id(value), made)
    exact: Any = type(value)  # not what an object says of itself
    try:
        made = object.__new__(exact) if _copies_plainly(exact) else copy.copy(value)
    except TypeError:  # a lock, a stream: cannot be copied
        made = value
    known[id(value)] = made
    if made is value:
        return made
    if _is(kind, dict):
        for key, part in value.items():
            made[key] = fresh(part, known)
    elif _is(kind, list):
        made[:] = [fresh(part, known) for part in value]
    for name, part in _attributes(value):
        object.__setattr__(made, name, fresh(part, known))
    return made


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in the structure of an argument, each once."""
    found: list[Tensor] = []
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        kind = value.__class__
        if _is(kind, Tensor):
            found.append(value)
        if _is(kind, _SHARED):
            continue
        waiting += [part for _, part in _attributes(value)]
        if _is(kind, dict):
            waiting += value.values()
        elif _is(kind, (list, tuple, set, frozenset)):
            waiting += value
    return found


# A cache has an object for each of its layers, and every block receives all of them: what is to be
# known of a type is asked once.
_is = cache(issubclass)


@cache
def _copies_plainly(kind: type) -> bool:
    """Whether `copy.copy` of a type's objects copies their attributes and nothing else."""
    own = {name for base in kind.__mro__[:-1] for name in vars(base)}
    special = {"__copy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"}
    special |= {"__new__", "__getnewargs__", "__getnewargs_ex__", "__slots__"}
    return not own & special and not issubclass(kind, dict | list | set)


@cache
def _slots(kind: type) -> tuple[str, ...]:
    """Attributes of a type's objects that are in slots."""
    found: list[str] = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        found += (slots,) if isinstance(slots, str) else slots
    return tuple(name for name in found if name not in ("__dict__", "__weakref__"))


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """An object's attributes, in its dictionary or in slots."""
    found = list(getattr(value, "__dict__", {}).items())
    found += [
        (name, getattr(value, name)) for name in _slots(value.__class__) if hasattr(value, name)
    ]
    return found
