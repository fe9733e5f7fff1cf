"""Copies of a model's cache, so that a block can be called again with its state before the call."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import Cache


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


def cache_tensors(cache: Cache) -> Iterator[Tensor]:
    """The tensors that a cache's layers hold."""
    for layer in getattr(cache, "layers", ()):
        for value in vars(layer).values():
            if isinstance(value, Tensor):
                yield value
