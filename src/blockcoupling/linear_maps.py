"""Products of a few vectors with a large constant matrix, on all threads.

BLAS libraries share out a product between threads by its rows: with a few dozen vectors or fewer,
a second thread gains next to nothing. Cut into panels that are multiplied as a batch, the matrix is
shared out instead, and two threads take half the time (docs/benchmarks.md). A block's weights are
constants here, so its linear layers can be replaced, while its graph is recorded, by a function
that does so; it also has a batching rule of its own, by which mapped cotangents become rows of one
product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from jaxtyping import Float

# Measured for float32 on x86-64 with 1 to 768 vectors and matrices from 768 × 768: on two threads,
# 2 to 16 panels differ little; smaller matrices fit into the caches and gain nothing.
PANELS = 4
SMALLEST = 2**16


def times(
    x: Float[Tensor, "rows n"], matrix: Float[Tensor, "n m"], panels: int = PANELS
) -> Float[Tensor, "rows m"]:
    """X M, on a CPU by panels of M.

    Args:
        x: (rows, n).
        matrix: (n, m), of either memory order.
        panels: into how many pieces to cut the matrix; where its rows in memory are no multiple of
            that, it is taken whole.
    """
    # The axis that is cut is the slower one in memory, so that every panel is contiguous.
    by_column = matrix.stride(0) == 1
    axis = matrix.shape[1 if by_column else 0]
    if matrix.device.type != "cpu" or matrix.numel() < SMALLEST or axis % panels:
        return x @ matrix
    rows, width = x.shape[0], axis // panels
    if by_column:
        pieces = matrix.mT.reshape(panels, width, matrix.shape[0]).mT
        product = torch.bmm(x.expand(panels, -1, -1), pieces)
        return product.transpose(0, 1).reshape(rows, axis)
    pieces = matrix.reshape(panels, width, matrix.shape[1])
    return torch.bmm(x.reshape(rows, panels, width).transpose(0, 1), pieces).sum(0)


class _Times(torch.autograd.Function):
    """x M for a constant M, x: (..., n), M: (n, m)."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor) -> Tensor:
        return times(x.reshape(-1, x.shape[-1]), matrix).view(*x.shape[:-1], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.matrix = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Times.apply(grad, ctx.matrix.mT), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], x: Tensor, matrix: Tensor
    ) -> tuple[Tensor, int]:
        dim, matrix_dim = in_dims
        assert dim is not None
        assert matrix_dim is None
        return _Times.apply(x.movedim(dim, 0), matrix), 0


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not _is_constant(weight, input):
        return functional.linear(input, weight, bias)
    product = _Times.apply(input, weight.mT)
    return product if bias is None else product + bias


def _addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    if beta != 1 or alpha != 1 or not _is_constant(mat2, mat1):
        return torch.addmm(input, mat1, mat2, beta=beta, alpha=alpha)
    return _Times.apply(mat1, mat2) + input


def _is_constant(weight: Tensor, x: Tensor) -> bool:
    """Whether a matrix is one that the graph did not compute, in the vectors' own precision."""
    return weight.ndim == 2 and weight.grad_fn is None and weight.dtype == x.dtype


_REPLACED: dict[Any, Callable[..., Tensor]] = {functional.linear: _linear, torch.addmm: _addmm}


def shared_out(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products with a block's weights are those of this module.

    Where a thread works alone, or on an accelerator, the library's own are as good.
    """
    several = device.type == "cpu" and torch.get_num_threads() > 1
    return ConstantWeights() if several else nullcontext()


class ConstantWeights(TorchFunctionMode):
    """While it is entered, products with a block's weights are those of this module."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _REPLACED.get(func, func)(*args, **(kwargs or {}))
