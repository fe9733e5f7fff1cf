"""The Jacobians of one block, for a batch of prompts, as linear operators.

An operator has matrix-vector products in both directions and the matrix itself; vectors are
columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Vectors = Float[Tensor, "prompt embed k"]


class Operator(ABC):
    """Jacobians of one block for a batch of prompts.

    Attributes:
        prompts: P, the number of Jacobians.
        dimension: d; every Jacobian is d × d.
        dtype, device: of its vectors.
        products: matrix-vector products so far, per prompt.
        matmul_error: ‖(J' − J) Ω‖_F / ‖J Ω‖_F for random Ω, where J' is J with products of lower
            precision (see `BlockJacobian.lower`); None at full precision.
    """

    prompts: int
    dimension: int
    dtype: torch.dtype
    device: torch.device
    products: int = 0
    matmul_error: Float[Tensor, " prompt"] | None = None

    def matmat(self, v: Vectors) -> Vectors:
        """J v for every prompt: (prompt, d, k) → (prompt, d, k)."""
        return self.times(v, transposed=False)

    def adjoint(self, u: Vectors) -> Vectors:
        """Jᵀ u for every prompt: (prompt, d, k) → (prompt, d, k)."""
        return self.times(u, transposed=True)

    def times(self, vectors: Vectors, transposed: bool) -> Vectors:
        """J or Jᵀ times vectors, counted in `products`."""
        self.products += vectors.shape[-1]
        return self._times(vectors, transposed)

    def dense(self) -> Float[Tensor, "prompt embed embed"]:
        """J for every prompt, rows = output, columns = input; its work is added to `products`."""
        jacobian = self._matrix()
        self.products += round(self.dense_products)
        return jacobian

    @abstractmethod
    def _times(self, vectors: Vectors, transposed: bool) -> Vectors:
        """J or Jᵀ times vectors."""

    @abstractmethod
    def _matrix(self) -> Float[Tensor, "prompt embed embed"]:
        """J for every prompt."""

    def unchanged(self) -> Bool[Tensor, " prompt"]:
        """For which prompts the residual function is constant around the point, on the CPU.

        By finite differences; False for operators without a function.
        """
        return torch.zeros(self.prompts, dtype=torch.bool)

    @property
    def dense_products(self) -> float:
        """Work of `dense` for a prompt, in products in large batches."""
        return self.dimension

    @property
    def attention(self) -> str:
        """How the block attended: "one-token" (with its context constant) or "eager"."""
        return "eager"


class DenseOperator(Operator):
    """Jacobians given as matrices (prompt, d, d)."""

    def __init__(self, jacobian: Float[Tensor, "prompt embed embed"]) -> None:
        self._jacobian = jacobian
        self.prompts, self.dimension, _ = jacobian.shape
        self.dtype, self.device = jacobian.dtype, jacobian.device

    def dense(self) -> Float[Tensor, "prompt embed embed"]:
        """The matrices themselves, which cost nothing."""
        return self._jacobian

    _matrix = dense

    def _times(self, vectors: Vectors, transposed: bool) -> Vectors:
        return (self._jacobian.mT if transposed else self._jacobian) @ vectors


class SomeOperator(Operator):
    """Some prompts of an operator.

    Args:
        whole: the operator.
        chosen: positions of the prompts, ascending.
    """

    def __init__(self, whole: Operator, chosen: Int[Tensor, " prompt"]) -> None:
        self._whole, self._chosen = whole, chosen.to(whole.device)
        self.prompts, self.dimension = len(chosen), whole.dimension
        self.dtype, self.device = whole.dtype, whole.device

    @property
    def dense_products(self) -> float:
        """Work of the whole operator's `dense`, for a prompt."""
        return self._whole.dense_products

    def _times(self, vectors: Vectors, transposed: bool) -> Vectors:
        full = vectors.new_zeros(self._whole.prompts, *vectors.shape[1:])
        full = full.index_copy(0, self._chosen, vectors)
        return self._whole.times(full, transposed)[self._chosen]

    def _matrix(self) -> Float[Tensor, "prompt embed embed"]:
        return self._whole.dense()[self._chosen]


class StackedOperator(Operator):
    """Several operators as one batch, with their prompts in order."""

    def __init__(self, members: Sequence[Operator]) -> None:
        self._members = list(members)
        first = self._members[0]
        self.prompts = sum(m.prompts for m in self._members)
        self.dimension, self.dtype, self.device = first.dimension, first.dtype, first.device
        errors = [m.matmul_error for m in self._members if m.matmul_error is not None]
        self.matmul_error = torch.cat(errors) if errors else None

    @property
    def attention(self) -> str:
        """How the blocks of the members attended."""
        return "+".join(sorted({m.attention for m in self._members}))

    @property
    def dense_products(self) -> float:
        """Mean over the prompts of all members."""
        return sum(m.prompts * m.dense_products for m in self._members) / self.prompts

    def _times(self, vectors: Vectors, transposed: bool) -> Vectors:
        parts = vectors.split([m.prompts for m in self._members])
        pairs = zip(self._members, parts, strict=True)
        return torch.cat([member.times(part, transposed) for member, part in pairs])

    def _matrix(self) -> Float[Tensor, "prompt embed embed"]:
        return torch.cat([m.dense() for m in self._members])

    def unchanged(self) -> Bool[Tensor, " prompt"]:
        """For which prompts the members' functions are constant."""
        return torch.cat([m.unchanged() for m in self._members])
