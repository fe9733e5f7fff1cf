"""Run a model on tokens, in a state in which its blocks can be differentiated."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Int


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
