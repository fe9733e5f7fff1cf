"""The detached block: norm statistics, attention weights and gates are held constant.

What is left is linear in the residual stream, up to biases: it reproduces the block's output at the
point (arXiv 2505.24293). It is found operation by operation, so that no architecture is named, and
proved: the derivative of the detached block must not depend on where it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from blockcoupling.errors import UserError
from blockcoupling.transformer.agreement import random_like
from blockcoupling.transformer.attention import constant_weights
from blockcoupling.transformer.calls import BlockCall

if TYPE_CHECKING:
    from jaxtyping import Float


def _named(*names: str) -> set[Any]:
    """Functions of these names, wherever torch has them: each has several spellings."""
    places = (torch, Tensor, functional, torch.linalg, torch.special)
    return {getattr(place, name) for place in places for name in names if hasattr(place, name)}


# What norms divide by, and how attention and routers weigh.
_STATISTICS = _named("rsqrt", "sqrt", "norm", "vector_norm", "var", "std", "softmax", "log_softmax")
# Gates: between 0 and 1, or −1 and 1, or a factor.
_GATES = _named("sigmoid", "tanh", "softplus", "logsigmoid", "erf", "exp", "hardsigmoid")
# Activations, z times a gate of z.
_ACTIVATIONS = _named(
    *("silu", "gelu", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "mish", "hardswish"),
    *("prelu", "square"),
)
_CLAMPS = _named("clamp", "clip", "clamp_min", "clamp_max", "hardtanh", "threshold")
_POWERS = _named("pow", "__pow__")
_PRODUCTS = _named("mul", "multiply", "__mul__", "__rmul__", "mul_")
# Their result is a new vector, not a gated one.
_LAYERS = _named("linear", "matmul", "bmm", "mm", "addmm", "__matmul__", "einsum", "conv1d")


class DetachedBlock(nn.Module):
    """A block of which norm statistics, attention weights and gates are held constant."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the block returns, with the gradient of the detached block."""
        with constant_weights(), _Detaching():
            return self.block(*args, **kwargs)


def detached(call: BlockCall) -> Callable[[BlockCall], BlockCall]:
    """How calls of a block's detached block follow from the block's own: with another derivative.

    Args:
        call: of the block, on any tokens.

    Raises:
        UserError: something in the block is not held constant.
    """
    block = DetachedBlock(call.block)
    if not _is_affine(replace(call, block=block)):
        raise UserError(
            f"{type(call.block).__name__} has an operation that is neither a norm, nor a softmax, "
            "an activation or a gate, so that it has no detached Jacobian. Leave `detached` out "
            "for this model."
        )
    return lambda own: replace(own, block=block)


def _is_affine(call: BlockCall) -> bool:
    """Whether the derivative in the call's graph is a constant, by a random second derivative."""
    with torch.enable_grad():
        x = call.input.to(call.output.device).detach().clone().requires_grad_(True)
        y = call(x)
        (pulled,) = torch.autograd.grad(y, x, random_like(y), create_graph=True)
        if not pulled.requires_grad:
            return True
        (again,) = torch.autograd.grad(pulled, x, random_like(x, seed=1), allow_unused=True)
    return again is None or not bool(again.any())


class _Detaching(TorchFunctionMode):
    """A context in which statistics, weights and gates are constants of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self._own: dict[Any, Callable[..., Tensor]] = {
            functional.layer_norm: _layer_norm,
            functional.rms_norm: _rms_norm,
            functional.scaled_dot_product_attention: _attention,
        }
        self._gated = WeakTensorKeyDictionary()

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if (own := self._own.get(func)) is not None:
            return own(*args, **kwargs)
        if func in _STATISTICS or (func in _POWERS and not _is_whole(args[1])):
            return func(*args, **kwargs).detach()
        if func in _GATES:
            return self._mark(func(*args, **kwargs).detach())
        if func in _ACTIVATIONS or func in _POWERS:
            return self._mark(_factor(args[0], func(*args, **kwargs)))
        if func in _CLAMPS:
            return _factor(args[0], func(*args, **kwargs))
        gated = func not in _LAYERS and any(self._is_gated(each) for each in args)
        if func in _PRODUCTS and len(args) == 2:
            args = self._one_constant(*args)
        result = func(*args, **kwargs)
        return self._mark(result) if gated and isinstance(result, Tensor) else result

    def _mark(self, result: Tensor) -> Tensor:
        self._gated[result] = None
        return result

    def _is_gated(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value in self._gated

    def _one_constant(self, one: Any, other: Any) -> tuple[Any, Any]:
        """The factors of a product; of a gate and a vector, the gate is held constant."""
        gates = self._is_gated(one), self._is_gated(other)
        if gates == (True, False) and isinstance(other, Tensor) and other.requires_grad:
            return one.detach(), other
        if gates == (False, True) and isinstance(one, Tensor) and one.requires_grad:
            return one, other.detach()
        return one, other


def _is_whole(exponent: Any) -> bool:
    return isinstance(exponent, int | float) and exponent >= 1


def _factor(z: Tensor, result: Tensor) -> Tensor:
    """An activation's result as z times a constant; 0 where z is."""
    return z * torch.where(z == 0, 0, result / z).detach()


def _layer_norm(
    x: Float[Tensor, "*rows n"],
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*rows n"]:
    """Layer norm with a constant variance; subtracting the mean is linear."""
    axes = tuple(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    scaled = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt().detach()
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias


def _rms_norm(
    x: Float[Tensor, "*rows n"],
    shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Float[Tensor, "*rows n"]:
    """RMS norm with a constant mean square."""
    axes = tuple(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scaled = x * (x.square().mean(axes, keepdim=True) + eps).rsqrt().detach()
    return scaled if weight is None else scaled * weight


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Attention with constant weights."""
    attend = functional.scaled_dot_product_attention
    return attend(query.detach(), key.detach(), value, *args, **kwargs)
