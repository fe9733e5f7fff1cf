"""The Jacobian of one token's function by automatic differentiation: J V, Jᵀ U, and J itself.

Vector-Jacobian products come from a backward pass through the graph of one forward pass, mapped
over cotangents, so that the forward pass runs once and a weight is read once for all of them.
Jacobian-vector products differentiate that (linear) backward pass once more, without forward-mode
rules. Where the pieces between linear layers have known forms, products are made of these alone
(`factored`). A whole J takes fewer products than it has rows (`accumulate`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian import batches, finite_differences
from blockcoupling.jacobian.accumulate import CutGraph
from blockcoupling.jacobian.linear_maps import shared_out
from blockcoupling.jacobian.matmul import Matmul, multiplying, recording
from blockcoupling.jacobian.operator import Operator
from blockcoupling.jacobian.pieces import ENTRIES

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from blockcoupling.jacobian.operator import Vectors

# All blocks share their model's setting of how to attend, so only one of them records at a time.
one_at_a_time = threading.Lock()


class BlockJacobian(Operator):
    """The Jacobian of a function of one token's state, by automatic differentiation.

    Args:
        function: (prompt, d) → (prompt, d), prompts independent of each other.
        point: where it is linearized, (prompt, d).
        residual: subtract the identity (same-token Jacobians of a block with a skip connection).
        tokens: how many tokens' states and context carry gradients (1 if the context is constant).
        repeats: whether the function also accepts consecutive copies of every prompt,
            (prompt · copies, d).
        alone: for several prompts, makes the operator of one of them, by which whole Jacobians are
            computed if the pieces of the block have no known form (see `pieces`).
    """

    attention: str = "eager"

    def __init__(
        self,
        function: Callable[[Float[Tensor, "prompt embed"]], Float[Tensor, "prompt embed"]],
        point: Float[Tensor, "prompt embed"],
        residual: bool,
        tokens: int = 1,
        repeats: bool = False,
        alone: Callable[[int], Operator] | None = None,
    ) -> None:
        self.prompts, self.dimension = point.shape
        self.dtype, self.device = point.dtype, point.device
        self._function, self._point, self._residual = function, point.detach(), residual
        self._tokens = tokens
        self._rows = max(1, batches.rows_at_once(self.dimension, tokens) // self.prompts)
        self._repeats, self._alone = repeats, alone
        self._matmul: Matmul = "float32"
        self._narrow: tuple[int, Graph] | None = None
        self._last = 0
        cut = self.dimension >= batches.CUT_FROM
        self._cut: CutGraph | None = self._record_cut() if cut else None
        self._plain: Graph | None = None if cut else self._record(1)

    @property
    def output(self) -> Float[Tensor, "prompt embed"]:
        """The block's output at the point, (prompt, d)."""
        return (self._cut or self._graph).output

    @cached_property
    def dense_products(self) -> float:
        """Fewer than d if J is accumulated."""
        return self.dimension if self._cut is None else self._cut.products

    @property
    def _graph(self) -> Graph:
        if self._plain is None:
            self._plain = self._record(1)
        return self._plain

    def _times(self, vectors: Vectors, transposed: bool) -> Vectors:
        """By the pieces between linear layers if all are known, or else by differentiation.

        Then Jᵀ u takes a backward pass, and J v is the derivative of the linear map u ↦ Jᵀ u.
        """
        if self._cut is not None and (factored := self._cut.factored) is not None:
            product = factored.pull if transposed else factored.push
            parts = vectors.mT.contiguous().split(self._rows, dim=1)
            found = torch.cat([product(part) for part in parts], dim=1).mT
        else:
            found = self._pull(vectors, Graph.vjp if transposed else Graph.jvp)
        return found - vectors if self._residual else found

    def _matrix(self) -> Float[Tensor, "prompt embed embed"]:
        """J, accumulated from cut to cut, or a block of rows at a time."""
        if self._cut is None:
            jacobian = self._by_rows()
        elif self._cut.known:
            jacobian = self._point.new_empty(self.prompts, self.dimension, self.dimension)
            for prompt in range(self.prompts):
                jacobian[prompt] = self._cut.jacobian(prompt)
        else:
            assert self._alone is not None
            return torch.cat([self._alone(prompt).dense() for prompt in range(self.prompts)])
        if self._residual:
            jacobian.diagonal(dim1=1, dim2=2).sub_(1)
        return jacobian

    def _by_rows(self) -> Float[Tensor, "prompt embed embed"]:
        d = self.dimension
        jacobian = torch.empty(self.prompts, d, d, dtype=self.dtype, device=self.device)
        for start in range(0, d, self._rows):
            rows = min(self._rows, d - start)
            unit = torch.zeros(rows, self.prompts, d, dtype=self.dtype, device=self.device)
            index = torch.arange(rows, device=self.device)
            unit[index, :, start + index] = 1
            jacobian[:, start : start + rows] = self._graph.vjp(unit).transpose(0, 1)
        return jacobian

    def unchanged(self) -> Bool[Tensor, " prompt"]:
        """For which prompts the function is constant around the point."""
        with one_at_a_time:
            return finite_differences.unchanged(self._function, self._point, self._residual)

    def lower(self, matmul: Matmul) -> None:
        """Do the block's matrix products in TF32 or bfloat16 from now on; measure what it costs."""
        generator = torch.Generator().manual_seed(0)
        # The same for every prompt: what else is in the batch changes no prompt's numbers.
        probes = torch.randn(1, self.dimension, 4, generator=generator, dtype=torch.float64)
        probes = probes.to(self.device, self.dtype).expand(self.prompts, -1, -1)
        exact = self.adjoint(probes)
        self._matmul, self._narrow, self._cut, self._alone = matmul, None, None, None
        self.dense_products = self.dimension
        self._plain = self._record(1)
        difference = (self.adjoint(probes) - exact).flatten(1).norm(dim=1)
        # Of a Jacobian that is 0 in either precision there is no error.
        ratio = difference / exact.flatten(1).norm(dim=1)
        self.matmul_error = torch.where(difference == 0, 0, ratio)

    def _record_cut(self) -> CutGraph:
        # Of a context that takes part there are numbers for every vector, too.
        entries = ENTRIES if self._tokens == 1 else 2 * self._rows * self.dimension
        with one_at_a_time:
            graph = CutGraph(self._function, self._point, entries)
        _demand_gradient(graph.output_requires_grad)
        return graph

    def _record(self, copies: int) -> Graph:
        plain = self._matmul == "float32"
        products = shared_out(self.device) if plain else recording(self._matmul, self.device)
        with one_at_a_time, torch.enable_grad(), products:
            x = self._point.repeat_interleave(copies, 0).requires_grad_(True)
            y = self._function(x)
        _demand_gradient(y.requires_grad)
        return Graph(x, y.to(x.dtype), self._matmul)

    def _pull(self, vectors: Vectors, product: Callable[[Graph, Tensor], Tensor]) -> Vectors:
        k = vectors.shape[-1]
        if (graph := self._of_copies(k)) is not None:
            rows = vectors.mT.contiguous().view(1, -1, self.dimension)
            return product(graph, rows).view(self.prompts, k, self.dimension).mT
        cotangents = vectors.permute(2, 0, 1).contiguous()
        parts = [product(self._graph, part) for part in cotangents.split(self._rows)]
        return torch.cat(parts).permute(1, 2, 0)

    def _of_copies(self, k: int) -> Graph | None:
        """A graph with a copy of the token for each vector, or None.

        It needs no mapping over cotangents, whose rules take as long as the products with a few
        vectors. As recording it costs a few products, it is made when the same k comes again.
        """
        again, self._last = k == self._last, k
        if not (self._repeats and again and 1 < k <= batches.NARROW):
            return None
        if self._narrow is None or self._narrow[0] != k:
            self._narrow = k, self._record(k)
        return self._narrow[1]


def _demand_gradient(there: bool) -> None:
    if not there:
        raise MeasurementError(
            "the block's output has no gradient with respect to its input (a kernel without "
            "autograd, as quantized layers have; load the model with dequantized weights)"
        )


class Graph:
    """The autograd graph of y = f(x), usually x and y (row, d), and products with its Jacobian.

    Attributes:
        y: the output, with its graph.
    """

    def __init__(
        self,
        x: Float[Tensor, "row embed"],
        y: Float[Tensor, "row embed"],
        matmul: Matmul = "float32",
    ) -> None:
        self._x, self.y, self._matmul = x, y, matmul
        self._transposed: tuple[Tensor, Tensor] | None = None

    @property
    def output(self) -> Float[Tensor, "row embed"]:
        """y, without its graph."""
        return self.y.detach()

    def vjp(self, u: Float[Tensor, "k row embed"]) -> Float[Tensor, "k row embed"]:
        """∂(y·u)/∂x for each of k cotangents."""
        return self._pull(self.y, self._x, u)

    def jvp(self, v: Float[Tensor, "k row embed"]) -> Float[Tensor, "k row embed"]:
        """The directional derivatives of y along each of k tangents, by a second backward pass."""
        if self._transposed is None:
            with torch.enable_grad(), multiplying(self._matmul):
                u = torch.zeros_like(self.y, requires_grad=True)
                (pulled,) = torch.autograd.grad(self.y, self._x, u, create_graph=True)
            self._transposed = (pulled, u)
        return self._pull(*self._transposed, v)

    def _pull(
        self, output: Tensor, leaf: Tensor, cotangents: Float[Tensor, "k row embed"]
    ) -> Float[Tensor, "k row embed"]:
        def one(cotangent: Tensor) -> Tensor:
            return torch.autograd.grad(output, leaf, cotangent, retain_graph=True)[0]

        with multiplying(self._matmul):
            if len(cotangents) == 1:
                return one(cotangents[0])[None]
            return torch.vmap(one)(cotangents)
