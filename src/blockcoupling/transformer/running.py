"""Run a model on token ids or an image, in a state in which its blocks can be differentiated."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from blockcoupling.errors import UserError

Given = Int[Tensor, "1 token"] | Float[Tensor, "1 channel height width"]
"""What a model is run on: token ids, or the pixel values of an image."""


def run(model: nn.Module, given: Given, *, every_logit: bool = False, **kwargs: Any) -> Any:
    """Pass a prompt or an image through a model, by the door that it was handed over with.

    Args:
        model: the model; its own forward is called.
        given: token ids (1, token), or pixel values (1, channel, height, width).
        every_logit: where the model is run with its head, have the logits of all tokens.
        kwargs: further arguments, passed on where the forward takes them.
    """
    inner = without_head(model)
    parameters = inspect.signature(inner.forward).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if inner is model and "logits_to_keep" in parameters:
        kwargs = {"logits_to_keep": 0 if every_logit else 1} | kwargs  # the vocabulary is wide
    named = {k: value for k, value in kwargs.items() if open_ended or k in parameters}
    name = "pixel_values" if given.is_floating_point() else "input_ids"
    if name in parameters or open_ended:
        return inner(**{name: given}, **named)
    return inner(given, **named)


# What a class is called that is a body with a head on its last hidden state.
_HEADED = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForImageClassification")


def without_head(model: nn.Module) -> nn.Module:
    """The part of a model below its head, where leaving the head out changes nothing else.

    So it is for transformers' own language models and image classifiers as they are. What wraps
    one (an adapter, a prefix, a class of the user's) lives in its own forward, which is not passed
    by.
    """
    from transformers import PreTrainedModel  # imports all that models need: seconds

    base = getattr(model, "base_model", model)
    kind = type(model)
    plain = (
        isinstance(model, PreTrainedModel)
        and isinstance(base, PreTrainedModel)
        and kind.__module__.startswith("transformers.models.")
        and kind.__name__.endswith(_HEADED)
        and "forward" not in vars(model)
        and not model._forward_hooks
        and not model._forward_pre_hooks
    )
    return base if plain else model


def refuse_absent_weights(model: nn.Module) -> None:
    """Refuse a model whose weights are not in memory, or cannot be differentiated with.

    Raises:
        UserError: saying which, and what to do.
    """
    name = type(model).__name__
    tensors = [*model.parameters(), *model.buffers()]
    if not any(tensor.is_floating_point() for tensor in tensors):
        raise UserError(f"{name} has no weights to differentiate: pass a model with its weights")
    if any(tensor.is_meta for tensor in tensors):
        raise UserError(
            f"{name} has weights that are not in memory (offloaded to the disk or the CPU, or on "
            "the meta device). Load it whole, without offloading; a model larger than memory is "
            "streamed from its directory (blockcoupling.transformer.streaming.stream_model)."
        )
    if any(tensor.is_inference() for tensor in tensors):
        raise UserError(
            f"{name} has weights that were made under torch.inference_mode(), which cannot be "
            "differentiated. Load it outside of that."
        )


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Put a model into a state in which its blocks can be differentiated twice, for a while.

    Evaluation mode (no dropout), and the plain PyTorch implementations of attention and of
    mixtures of experts: the fused ones lack second derivatives, or float64, on some devices. What
    stands around the call is left outside: inference mode, automatic mixed precision; what has
    been compiled runs as it was before.
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
    devices = {parameter.device.type for parameter in model.parameters()} - {"meta"}
    with ExitStack() as around:
        around.enter_context(torch.inference_mode(False))
        around.enter_context(torch.compiler.set_stance("force_eager"))
        for device in sorted(devices):
            around.enter_context(torch.autocast(device, enabled=False))
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
