"""Run a model on token ids or an image, in a state in which its blocks can be differentiated."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from blockcoupling.errors import UserError
from blockcoupling.transformer.implementations import PLAIN, SETTINGS, may_be_plain, of_transformers

Given = Int[Tensor, "1 token"] | Float[Tensor, "1 channel height width"]
"""Input of a model: token ids, or the pixel values of an image."""


def run(model: nn.Module, given: Given, *, every_logit: bool = False, **kwargs: Any) -> Any:
    """Run a model on a prompt or an image, without its head where nothing else depends on that.

    Args:
        model: the model; its own forward is called.
        given: token ids (1, token), or pixel values (1, channel, height, width).
        every_logit: if the head is run, compute the logits of all tokens, not of the last alone.
        kwargs: further arguments; those that the forward does not take are dropped.
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


# Ends of the names of classes that are a body with a head on its last hidden state.
_HEADED = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForImageClassification")


def without_head(model: nn.Module) -> nn.Module:
    """The part of a model below its head, if omitting the head changes nothing else.

    This holds for transformers' own language models and image classifiers. A wrapper (an adapter,
    a prefix, a class of the user's) acts in its own forward and is returned as it is, and so is a
    model whose forward was replaced.
    """
    library = sys.modules.get("transformers.modeling_utils")
    if library is None:  # then this is not one of its models, and importing it takes seconds
        return model
    base = getattr(model, "base_model", model)
    kind = type(model)
    plain = (
        isinstance(model, library.PreTrainedModel)
        and isinstance(base, library.PreTrainedModel)
        and kind.__module__.startswith("transformers.models.")
        and kind.__name__.endswith(_HEADED)
        and of_transformers(kind.forward)
        and "forward" not in vars(model)
        and not model._forward_hooks
        and not model._forward_pre_hooks
    )
    return base if plain else model


@contextmanager
def replaced_forward(modules: Iterable[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """A context in which calls of modules call a function instead of their own forward."""
    with ExitStack() as after:
        for module in {id(module): module for module in modules}.values():
            own = vars(module)
            if "forward" in own:
                after.callback(own.__setitem__, "forward", own["forward"])
            else:
                after.callback(own.pop, "forward")
            own["forward"] = forward
        yield


def text_config(model: object) -> Any:
    """A model's configuration, or that of its language model if it has several parts."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def refuse_absent_weights(model: nn.Module) -> None:
    """Refuse a model whose weights are not in memory, or cannot take part in differentiation.

    Raises:
        UserError: the reason, and what to do.
    """
    name = type(model).__name__
    tensors = [*model.parameters(), *model.buffers()]
    if not any(tensor.is_floating_point() for tensor in tensors):
        raise UserError(f"{name} has no floating-point weights: pass a model with its weights")
    if any(tensor.is_meta for tensor in tensors):
        raise UserError(
            f"{name} has weights that are not in memory (offloaded to the disk or the CPU, or on "
            "the meta device). Load it without offloading, or stream a model larger than memory "
            "from its directory (blockcoupling.transformer.streaming.stream_model)."
        )
    low = [each for each, value in model.named_parameters() if value.dtype.itemsize < 2]
    if low or getattr(model, "is_quantized", False):
        such = f" (parameters of low precision, such as {low[0]})" if low else ""
        raise UserError(
            f"{name} is quantized{such}: its layers have no gradient, or another one. Pass the "
            "unquantized model, or model.dequantize()."
        )
    if any(tensor.is_inference() for tensor in tensors):
        raise UserError(
            f"{name} has weights that were created under torch.inference_mode() and cannot be "
            "differentiated. Load the model outside that context."
        )


def replaceable(model: nn.Module) -> list[tuple[Any, str, Any]]:
    """Where a plain implementation is to replace another: configuration, its setting, its value."""
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if getattr(module, "config", None) is not None
    }
    return [
        (config, name, getattr(config, name))
        for config in configs.values()
        for name in SETTINGS
        if getattr(config, name, PLAIN) != PLAIN and may_be_plain(name, getattr(config, name))
    ]


@contextmanager
def differentiable(model: nn.Module, plain: bool = True) -> Iterator[None]:
    """A context in which a model's blocks can be differentiated twice.

    Evaluation mode (no dropout), and the plain PyTorch implementations of attention and of
    mixtures of experts: the fused ones lack second derivatives, or float64, on some devices. Only
    implementations that give the same numbers are replaced; a user's own is part of the model.
    Inference mode and automatic mixed precision around the call are disabled, and compiled modules
    run uncompiled. Batch norms are computed as the affine maps that they are in evaluation mode:
    PyTorch 2.13 gives them a wrong gradient on a CPU for one image whose channels come last in
    memory.

    Args:
        model: the model.
        plain: False leaves the implementations as they are.
    """
    before = replaceable(model) if plain else []
    modes = [(module, module.training) for module in model.modules()]
    devices = {parameter.device.type for parameter in model.parameters()} - {"meta"}
    with ExitStack() as around:
        around.enter_context(torch.inference_mode(False))
        if "torch._dynamo" in sys.modules:  # else nothing has been compiled
            around.enter_context(torch.compiler.set_stance("force_eager"))
        for device in sorted(devices):
            around.enter_context(torch.autocast(device, enabled=False))
        for module in model.modules():
            own = type(module).forward is _BatchNorm.forward and "forward" not in vars(module)
            if isinstance(module, _BatchNorm) and own and module.running_var is not None:
                around.enter_context(replaced_forward([module], partial(_affine, module)))
        model.eval()
        try:
            for config, name, _ in before:
                setattr(config, name, PLAIN)
            yield
        finally:
            for config, name, value in before:
                setattr(config, name, value)
            for module, training in modes:
                module.training = training


def _affine(norm: _BatchNorm, x: Float[Tensor, "row channel *place"]) -> Tensor:
    """A batch norm with the statistics that it has stored."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale + (norm.bias if norm.affine else 0)
    shape = (-1,) + (1,) * (x.ndim - 2)
    return x * scale.view(shape) + shift.view(shape)
