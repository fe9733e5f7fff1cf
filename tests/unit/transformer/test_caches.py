"""A copy of what a block was called with is deep in structure, whatever it is made of."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from blockcoupling.transformer.caches import Shared, fresh, tensors_in

Pair = namedtuple("Pair", "one other")


@dataclass
class Layer:
    """What layers of caches are: tensors that hang on dictionaries and lists of an object."""

    states: dict[int, Tensor | None] = field(default_factory=lambda: {0: torch.ones(2), 1: None})
    seen: list[Any] = field(default_factory=lambda: [torch.zeros(1), [False]])


class Slotted:
    __slots__ = ("history", "state")

    def __init__(self) -> None:
        self.state, self.history = torch.ones(3), []


def test_structure_is_copied_and_tensors_are_shared() -> None:
    layer = Layer()
    copied = fresh(layer)
    copied.states[0] = torch.full((2,), 7.0)
    copied.states[2] = torch.ones(1)
    copied.seen[1][0] = True
    assert torch.equal(layer.states[0], torch.ones(2))
    assert list(layer.states) == [0, 1]
    assert layer.seen[1] == [False]
    assert copied.seen[0] is layer.seen[0]


def test_every_kind_of_container() -> None:
    slotted = Slotted()
    value = (Pair([1], {"a": [2]}), OrderedDict(b=[3]), {4}, frozenset({5}), slotted, "text", None)
    copied = fresh(value)
    pair, ordered, numbers, frozen, other, *rest = copied
    assert (pair, ordered, numbers, frozen) == value[:4]
    assert type(pair) is Pair
    assert type(ordered) is OrderedDict
    pair.one.append(9)
    pair.other["a"].append(9)
    ordered["b"].append(9)
    numbers.add(9)
    other.history.append(9)
    assert value[:4] == (Pair([1], {"a": [2]}), OrderedDict(b=[3]), {4}, frozenset({5}))
    assert slotted.history == []
    assert other.state is slotted.state
    assert rest == ["text", None]


def test_what_two_arguments_have_in_common_stays_so() -> None:
    layer = Layer()
    one, other = fresh((layer, {"cache": layer}))
    assert one is other["cache"]
    assert one is not layer


def test_what_points_back_to_itself() -> None:
    ring: dict[str, Any] = {"tensor": torch.ones(1)}
    ring["ring"] = ring
    copied = fresh(ring)
    assert copied["ring"] is copied
    assert [t.shape for t in tensors_in(ring)] == [(1,)]


def test_modules_and_what_is_shared_on_purpose_are_not_copied() -> None:
    class Kept(Shared):
        pass

    module, kept = nn.Linear(2, 2), Kept()
    copied = fresh([module, kept, (part for part in "ab")])
    assert copied[0] is module
    assert copied[1] is kept


def test_tensors_are_found_wherever_they_hang() -> None:
    slotted, layer = Slotted(), Layer()
    found = list(tensors_in(({"a": [layer]}, slotted, layer)))
    assert {id(t) for t in found} == {id(layer.states[0]), id(layer.seen[0]), id(slotted.state)}


def test_a_cache_of_keys_and_values() -> None:
    cache = DynamicCache()
    cache.update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), 0)
    copied = fresh(cache)
    copied.update(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4), 0)
    assert cache.get_seq_length() == 3
    assert copied.get_seq_length() == 4
    assert len(list(tensors_in(cache))) == 2
