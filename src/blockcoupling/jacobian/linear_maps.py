"""Products of a few vectors with a large constant matrix, on all threads.

BLAS libraries split a product between threads by its rows: with at most a few dozen vectors, a
second thread saves almost nothing. If the matrix is cut into panels that are multiplied as a batch,
two threads take half the time. A block's weights are constants here, so while its graph is recorded
its linear layers are replaced by such a function. It also has its own batching rule, by which
mapped cotangents become rows of one product.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
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
        matrix: (n, m), in row-major or column-major order.
        panels: number of pieces of the matrix; it is not cut if this does not divide its rows in
            memory.
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


class ConstantProduct(torch.autograd.Function):
    """x M for a constant M, x: (..., n), M: (n, m), by `times`."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor) -> Tensor:
        """The product x M."""
        product = times(x.reshape(-1, x.shape[-1]), matrix)
        # Not a view, which a block may not write into afterwards (Llama 4 does).
        return torch.ops.aten._unsafe_view(product, [*x.shape[:-1], product.shape[-1]])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep the matrix, not x: the product is linear in it."""
        _, ctx.matrix = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Grad Mᵀ, by the same function."""
        return ConstantProduct.apply(grad, ctx.matrix.mT), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, matrix: Tensor
    ) -> tuple[Tensor, int]:
        """Mapped vectors are rows of one product."""
        dim, matrix_dim = in_dims
        assert dim is not None
        assert matrix_dim is None
        return ConstantProduct.apply(x.movedim(dim, 0), matrix), 0


def _is_constant(weight: Tensor, x: Tensor) -> bool:
    """Whether a matrix is a constant of the graph, in the precision of the vectors."""
    return weight.ndim == 2 and weight.grad_fn is None and weight.dtype == x.dtype


def shared_out(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products with a block's weights are those of this module.

    With one thread, or on an accelerator, the library's own are as fast.
    """
    return ConstantWeights() if _several(device) else nullcontext()


def quickest(x: Float[Tensor, "rows n"], matrix: Float[Tensor, "n m"]) -> Float[Tensor, "rows m"]:
    """X M, by `times` where that is faster than the library's own product."""
    return times(x, matrix) if _several(matrix.device) else x @ matrix


def _several(device: torch.device) -> bool:
    return device.type == "cpu" and torch.get_num_threads() > 1


# `apply` asks for the signature of `forward` each time; found here, it need not be parsed again.
ConstantProduct.forward.__signature__ = inspect.signature(  # type: ignore[attr-defined]
    ConstantProduct.forward
)


class ConstantWeights(TorchFunctionMode):
    """A context in which products with a block's weights are those of this module."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        own = {functional.linear: self._linear, torch.addmm: self._addmm}
        return own.get(func, func)(*args, **(kwargs or {}))

    def product(self, x: Tensor, matrix: Tensor) -> Tensor:
        """The replacement of x M, x: (..., n), M: (n, m)."""
        return ConstantProduct.apply(x, matrix)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not _is_constant(weight, input):
            return functional.linear(input, weight, bias)
        product = self.product(input, weight.mT)
        return product if bias is None else product + bias

    def _addmm(
        self, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
    ) -> Tensor:
        if beta != 1 or alpha != 1 or not _is_constant(mat2, mat1):
            return torch.addmm(input, mat1, mat2, beta=beta, alpha=alpha)
        return self.product(mat1, mat2) + input
