"""Which functions of a model are transformers' own, so that others with the same numbers exist."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

from torch.nn import functional

PLAIN = "eager"
# Implementations that compute what eager does, and the interface that lists them.
_SAME_NUMBERS = {
    "_attn_implementation": (
        ("transformers.modeling_utils", "ALL_ATTENTION_FUNCTIONS"),
        ("sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"),
    ),
    "_experts_implementation": (
        ("transformers.integrations.moe", "ALL_EXPERTS_FUNCTIONS"),
        ("batched_mm", "grouped_mm"),
    ),
}
SETTINGS = tuple(_SAME_NUMBERS)
"""Names in a configuration of what attention and mixtures of experts are computed with."""


def may_be_plain(setting: str, name: Any) -> bool:
    """Whether PyTorch's plain implementation gives the same numbers as the one in use.

    A function that a user registered, under a name of its own or over a known one, is part of the
    model.

    Args:
        setting: one of `SETTINGS`.
        name: its value in the configuration.
    """
    (module, interface), known = _SAME_NUMBERS[setting]
    if name is None:
        return True
    if name not in known:
        return False
    if name == "sdpa" and not isinstance(
        functional.scaled_dot_product_attention, BuiltinFunctionType
    ):
        return False
    listed = getattr(sys.modules.get(module), interface, {})
    return name not in listed or of_transformers(listed[name])


def of_transformers(function: Callable[..., Any]) -> bool:
    """Whether a function, and everything wrapped around it, was defined in transformers."""
    layers: list[Any] = [function]
    while hasattr(layers[-1], "__wrapped__"):
        layers.append(layers[-1].__wrapped__)
    names = (getattr(layer, "__globals__", {}).get("__name__", "") for layer in layers)
    return all(name.split(".")[0] == "transformers" for name in names)
