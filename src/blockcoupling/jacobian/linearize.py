"""A block at a point as a linear operator: J V, Jᵀ U, and J itself.

The residual Jacobian of block l from token t1 to token t2 is ∂f(X)_{t2}/∂x_{t1} with f = F − id
(arXiv 2407.07810): for t1 = t2 the Jacobian of the block minus the identity, for t1 < t2 the
Jacobian itself, since the skip connection does not cross tokens.

Vector-Jacobian products come from one backward pass through the graph of a single forward pass,
mapped over cotangents: the forward pass is paid once and a weight is read once for all of them.
Jacobian-vector products differentiate that (linear) backward pass once more; no forward-mode rules
are needed. A whole J takes fewer products than it has rows (`accumulate`).
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian.accumulate import ENTRIES, CutGraph
from blockcoupling.jacobian.linear_maps import shared_out
from blockcoupling.jacobian.matmul import Matmul, multiplying, recording
from blockcoupling.transformer.attention import Context, UnsupportedAttention, attend_to
from blockcoupling.transformer.blocks import BlockCall

if TYPE_CHECKING:
    from jaxtyping import Float

    Vectors = Float[Tensor, "prompt embed k"]


logger = logging.getLogger(__name__)

_recording = threading.Lock()
# Up to so many vectors at a time get a graph of their own, with one row for each.
NARROW = 32
# From this width on, a whole Jacobian is accumulated from cut to cut.
CUT_FROM = 256


class Operator(ABC):
    """Jacobians of one block for a batch of prompts; matrices are never assumed to exist.

    Attributes:
        prompts: P, the number of Jacobians side by side.
        dimension: d; every Jacobian is d × d.
        dtype, device: of the vectors it takes and gives.
        products: matrix-vector products done so far, per prompt.
        matmul_error: ‖(J' − J) Ω‖_F / ‖J Ω‖_F for random Ω, where J' is J with products of lower
            precision (see `lower`); None for those of the vectors' own.
    """

    prompts: int
    dimension: int
    dtype: torch.dtype
    device: torch.device
    products: int = 0
    matmul_error: Float[Tensor, " prompt"] | None = None

    @abstractmethod
    def matmat(self, v: Vectors) -> Vectors:
        """J v for every prompt: (prompt, d, k) → (prompt, d, k)."""

    @abstractmethod
    def adjoint(self, u: Vectors) -> Vectors:
        """Jᵀ u for every prompt: (prompt, d, k) → (prompt, d, k)."""

    @abstractmethod
    def dense(self) -> Float[Tensor, "prompt embed embed"]:
        """J for every prompt, rows = output, columns = input."""

    @property
    def dense_products(self) -> float:
        """What `dense` takes for a prompt, in products of many vectors at a time."""
        return self.dimension

    @property
    def attention(self) -> str:
        """How the block attended: "one-token" (context held apart) or "eager"."""
        return "eager"


class DenseOperator(Operator):
    """Jacobians that exist as matrices (prompt, d, d)."""

    def __init__(self, jacobian: Float[Tensor, "prompt embed embed"]) -> None:
        self._jacobian = jacobian
        self.prompts, self.dimension, _ = jacobian.shape
        self.dtype, self.device = jacobian.dtype, jacobian.device

    def matmat(self, v: Vectors) -> Vectors:
        """J v."""
        self.products += v.shape[-1]
        return self._jacobian @ v

    def adjoint(self, u: Vectors) -> Vectors:
        """Jᵀ u."""
        self.products += u.shape[-1]
        return self._jacobian.mT @ u

    def dense(self) -> Float[Tensor, "prompt embed embed"]:
        """The matrices themselves."""
        return self._jacobian


class BlockJacobian(Operator):
    """The Jacobian of a function of one token's state, by automatic differentiation.

    Args:
        function: (prompt, d) → (prompt, d), prompts independent of each other.
        point: where it is linearized, (prompt, d).
        residual: subtract the identity (same-token Jacobians of a block with a skip connection).
        tokens: how many tokens' states and context carry gradients (1 where the context is
            constant).
        repeats: whether the function also takes every prompt several times in a row,
            (prompt · copies, d).
        alone: for several prompts, makes the operator of one of them. Whole Jacobians are taken
            one by one then: each has vectors enough to fill the processor.
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
        self._rows = max(1, rows_at_once(self.dimension, tokens) // self.prompts)
        self._repeats, self._alone = repeats, alone
        self._matmul: Matmul = "float32"
        self._narrow: tuple[int, _Graph] | None = None
        self._last = 0
        cut = self.prompts == 1 and self.dimension >= CUT_FROM
        self._cut: CutGraph | None = self._record_cut() if cut else None
        self._plain: _Graph | None = None if cut else self._record(1)

    @property
    def output(self) -> Float[Tensor, "prompt embed"]:
        """The block's output at the point, (prompt, d)."""
        return (self._cut or self._graph).output

    @cached_property
    def dense_products(self) -> float:
        """Fewer than d, where J is accumulated."""
        if self._alone is not None:
            return self._alone(0).dense_products  # records the block anew
        return self.dimension if self._cut is None else self._cut.products

    @property
    def _graph(self) -> _Graph:
        if self._plain is None:
            self._plain = self._record(1)
        return self._plain

    def adjoint(self, u: Vectors) -> Vectors:
        """Jᵀ u by backward passes."""
        pulled = self._pull(u, _Graph.vjp)
        return pulled - u if self._residual else pulled

    def matmat(self, v: Vectors) -> Vectors:
        """J v, the derivative of the linear map u ↦ Jᵀ u."""
        pushed = self._pull(v, _Graph.jvp)
        return pushed - v if self._residual else pushed

    def dense(self) -> Float[Tensor, "prompt embed embed"]:
        """J, accumulated from cut to cut, or a block of rows at a time."""
        self.products += round(self.dense_products)
        if self._alone is not None:
            return torch.cat([self._alone(prompt).dense() for prompt in range(self.prompts)])
        jacobian = self._by_rows() if self._cut is None else self._cut.jacobian()[None]
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
        self.matmul_error = difference / exact.flatten(1).norm(dim=1)

    def _record_cut(self) -> CutGraph:
        # Of a context that takes part there are numbers for every vector, too.
        entries = ENTRIES if self._tokens == 1 else 2 * self._rows * self.dimension
        with _recording:
            graph = CutGraph(self._function, self._point, entries)
        _demand_gradient(graph.output_requires_grad)
        return graph

    def _record(self, copies: int) -> _Graph:
        plain = self._matmul == "float32"
        products = shared_out(self.device) if plain else recording(self._matmul, self.device)
        # How a block attends is a setting of its model, which all blocks share.
        with _recording, torch.enable_grad(), products:
            x = self._point.repeat_interleave(copies, 0).requires_grad_(True)
            y = self._function(x)
        _demand_gradient(y.requires_grad)
        return _Graph(x, y.to(x.dtype), self._matmul)

    def _pull(self, vectors: Vectors, product: Callable[[_Graph, Tensor], Tensor]) -> Vectors:
        k = vectors.shape[-1]
        self.products += k
        if (graph := self._of_copies(k)) is not None:
            rows = vectors.mT.contiguous().view(1, -1, self.dimension)
            return product(graph, rows).view(self.prompts, k, self.dimension).mT
        cotangents = vectors.permute(2, 0, 1).contiguous()
        parts = [product(self._graph, part) for part in cotangents.split(self._rows)]
        return torch.cat(parts).permute(1, 2, 0)

    def _of_copies(self, k: int) -> _Graph | None:
        """A graph of as many copies of the token as there are vectors; None where there is none.

        It needs no mapping over cotangents, whose rules take as long as the products of a few
        vectors themselves. Recording it takes a few products, too: the second time of a k pays it.
        """
        again, self._last = k == self._last, k
        if not (self._repeats and again and 1 < k <= NARROW):
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


class _Graph:
    """What autograd recorded of y = f(x), x and y (row, d); products with its Jacobian.

    Attributes:
        y: the output, with its graph.
    """

    def __init__(
        self, x: Float[Tensor, "row embed"], y: Float[Tensor, "row embed"], matmul: Matmul
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


class StackedOperator(Operator):
    """Several operators side by side, their prompts in order."""

    def __init__(self, members: Sequence[Operator]) -> None:
        self._members = list(members)
        first = self._members[0]
        self.prompts = sum(m.prompts for m in self._members)
        self.dimension, self.dtype, self.device = first.dimension, first.dtype, first.device
        errors = [m.matmul_error for m in self._members if m.matmul_error is not None]
        self.matmul_error = torch.cat(errors) if errors else None

    @property
    def attention(self) -> str:
        """How the members' blocks attended."""
        return "+".join(sorted({m.attention for m in self._members}))

    @property
    def dense_products(self) -> float:
        """Of all members together, over the prompts."""
        return sum(m.prompts * m.dense_products for m in self._members) / self.prompts

    def _each(self, act: Callable[[Operator, Tensor], Tensor], vectors: Vectors) -> Vectors:
        self.products += vectors.shape[-1]
        parts = vectors.split([m.prompts for m in self._members])
        return torch.cat([act(m, part) for m, part in zip(self._members, parts, strict=True)])

    def matmat(self, v: Vectors) -> Vectors:
        """J v."""
        return self._each(lambda m, part: m.matmat(part), v)

    def adjoint(self, u: Vectors) -> Vectors:
        """Jᵀ u."""
        return self._each(lambda m, part: m.adjoint(part), u)

    def dense(self) -> Float[Tensor, "prompt embed embed"]:
        """J for every prompt."""
        self.products += round(self.dense_products)
        return torch.cat([m.dense() for m in self._members])


def rows_at_once(dimension: int, tokens: int) -> int:
    """How many cotangents to send through a block together.

    Enough that its matrix products run near their peak rate (a few hundred rows), few enough that
    the widest intermediates (about 4d per token and cotangent, a handful alive) stay below the
    size of some Jacobians.

    Args:
        dimension: d.
        tokens: how many tokens' states and context carry gradients (1 where the context is
            constant).
    """
    return max(16, min(384, dimension // 2, 400_000_000 // (16 * dimension * tokens)))


class SameToken:
    """Operators of a model's blocks, as `same_token` makes them.

    How a block attends is found out the first time it is asked for, and holds from then on.

    Args:
        calls: block index → its decode calls, one per prompt.
        matmul: precision of the blocks' matrix products.
    """

    def __init__(
        self, calls: Callable[[int], Sequence[BlockCall]], matmul: Matmul = "float32"
    ) -> None:
        self._calls, self._matmul = calls, matmul
        self._attention: dict[int, str] = {}

    def __call__(self, block: int) -> Operator:
        """The operator of one block (0 …), its graph recorded anew."""
        return same_token(
            self._calls(block),
            self._matmul,
            self._attention.get(block),
            partial(self._attention.__setitem__, block),
        )


def same_token(
    calls: Sequence[BlockCall],
    matmul: Matmul = "float32",
    attention: str | None = None,
    settled: Callable[[str], object] = lambda attention: None,
) -> Operator:
    """The Jacobians of a block from each prompt's last token to itself, minus the identity.

    The block is called at exactly the arguments it was recorded with. Where its attention can be
    replaced by one that holds the context constant, and gives the same output and the same
    gradient, it is; the operator's `attention` says which was used.

    Args:
        calls: one decode call of the same block per prompt (`blocks.record_decode`).
        matmul: precision of the block's matrix products.
        attention: where it is known already, from an operator of these calls.
        settled: told how the block attends, once it is known.
    """
    fast = None if attention == "eager" else _one_token(calls)
    if fast is None:
        settled("eager")
        return _all_eager(calls, matmul)
    if attention == "one-token":
        return _lowered(fast, matmul)
    checked = _Checked(fast, calls, settled)
    if matmul == "float32":
        return checked
    return _lowered(fast, matmul) if checked.settle() is fast else _all_eager(calls, matmul)


class _Checked(Operator):
    """An operator with its context held apart, once it agrees with the block's own attention.

    Where it does not, the block's own takes its place. They are compared when the first product is
    asked for, or the whole J, which then serves for the comparison.
    """

    def __init__(
        self,
        fast: BlockJacobian,
        calls: Sequence[BlockCall],
        settled: Callable[[str], object],
    ) -> None:
        self._fast, self._calls, self._settled = fast, calls, settled
        self._chosen: BlockJacobian | StackedOperator | None = None
        self.prompts, self.dimension = fast.prompts, fast.dimension
        self.dtype, self.device = fast.dtype, fast.device

    def settle(
        self, adjoint: Callable[[Vectors], Vectors] | None = None
    ) -> BlockJacobian | StackedOperator:
        """The operator to use; compared, if it has not been, by Jᵀ u with J of the fast one."""
        if self._chosen is None:
            agree = _agree(self._fast.output, adjoint or self._fast.adjoint, self._calls)
            self._chosen = self._fast if agree else _all_eager(self._calls, "float32")
            self._settled(self._chosen.attention)
        return self._chosen

    @property
    def attention(self) -> str:
        """How the block attended."""
        return self.settle().attention

    @property
    def dense_products(self) -> float:
        """Of the operator that is used."""
        return (self._chosen or self._fast).dense_products

    def matmat(self, v: Vectors) -> Vectors:
        """J v."""
        chosen = self.settle()
        self.products += v.shape[-1]
        return chosen.matmat(v)

    def adjoint(self, u: Vectors) -> Vectors:
        """Jᵀ u."""
        chosen = self.settle()
        self.products += u.shape[-1]
        return chosen.adjoint(u)

    def dense(self) -> Float[Tensor, "prompt embed embed"]:
        """J for every prompt."""
        self.products += round(self.dense_products)
        if self._chosen is None:
            jacobian = self._fast.dense()
            # The residual Jacobian, as products with it are.
            if self.settle(lambda u: jacobian.mT @ u) is self._fast:
                return jacobian
        return self.settle().dense()


def between_tokens(
    call: BlockCall, token_in: int, token_out: int, matmul: Matmul = "float32"
) -> BlockJacobian:
    """The Jacobian of a block from one token of a prompt to another (or to itself).

    Args:
        call: a call on the whole prompt (`blocks.record_full`).
        token_in: t1, the token whose state is varied.
        token_out: t2 ≥ t1, the token whose state is read.
        matmul: precision of the block's matrix products.

    Raises:
        ValueError: if t1 > t2 (exactly zero in a causal model) or out of range.
    """
    tokens = call.input.shape[1]
    if not 0 <= token_in <= token_out < tokens:
        raise ValueError(f"tokens {token_in} → {token_out} of a prompt of {tokens}: need t1 ≤ t2")
    point = _point(call)
    before, after = point[:, :token_in], point[:, token_in + 1 :]

    def function(x: Tensor) -> Tensor:
        return call(torch.cat([before, x[:, None], after], dim=1))[:, token_out]

    operator = BlockJacobian(
        function,
        point[:, token_in],
        residual=token_in == token_out,
        tokens=tokens,
    )
    return _lowered(operator, matmul)


def _point(call: BlockCall) -> Float[Tensor, "prompt token embed"]:
    """Where a block is linearized, on the block's own device (of several, with a `device_map`)."""
    return call.input.to(call.output.device)


def _eager(call: BlockCall) -> BlockJacobian:
    cache = call.cache()
    context = 0 if cache is None else cache.get_seq_length()
    return BlockJacobian(
        lambda x: call(x[:, None])[:, 0],
        _point(call)[:, 0],
        residual=True,
        tokens=1 + context,
    )


def _one_token(calls: Sequence[BlockCall]) -> BlockJacobian | None:
    """The operator with the context held constant, all prompts at once; None if not possible."""
    caches = [call.cache() for call in calls]
    if any(cache is None or not hasattr(cache, "layers") for cache in caches):
        return None
    merged = _merge(calls)
    if merged is None:
        return None
    context = Context([cache for cache in caches if cache is not None])
    call = merged.with_cache(context)

    def function(x: Tensor) -> Tensor:
        with attend_to(context, call.block):
            return call(x[:, None])[:, 0]

    apart = len(calls) > 1 and call.input.shape[-1] >= CUT_FROM
    try:
        operator = BlockJacobian(
            function,
            _point(call)[:, 0],
            residual=True,
            repeats=len(calls) == 1,  # arguments of one prompt serve any number of copies
            alone=(lambda prompt: _one_token_of(calls[prompt])) if apart else None,
        )
    except (UnsupportedAttention, RuntimeError, TypeError, ValueError, IndexError) as error:
        # A block with an attention of its own trips, in its own way, over a cache that gives back
        # one key: it is then measured through that attention.
        logger.debug("block keeps its own attention: %s", error)
        return None
    if context.updates != 1 or context.uses != 1:
        return None
    operator.attention = "one-token"
    return operator


def _merge(calls: Sequence[BlockCall]) -> BlockCall | None:
    """One call for several prompts, where their arguments can be put side by side."""
    first = calls[0]
    if len(calls) == 1:
        return first
    try:
        args = tuple(_side_by_side([c.args[i] for c in calls]) for i in range(len(first.args)))
        kwargs = {key: _side_by_side([c.kwargs[key] for c in calls]) for key in first.kwargs}
    except UnsupportedAttention:
        return None
    return replace(
        first,
        args=args,
        kwargs=kwargs,
        input=torch.cat([c.input for c in calls]),
        output=torch.cat([c.output for c in calls]),
    )


def _side_by_side(values: list) -> object:
    """Put one argument of several calls side by side along the batch."""
    first = values[0]
    if isinstance(first, Tensor):
        if first.ndim == 4 and all(not v.any() for v in values) and first.is_floating_point():
            return None  # a mask that hides nothing: the padding is hidden by the context's bias
        if first.ndim == 0 or any(v.shape != first.shape for v in values):
            raise UnsupportedAttention("arguments of different shapes")
        if all(torch.equal(v, first) for v in values) and first.shape[0] != 1:
            return first
        if first.shape[0] != 1:
            raise UnsupportedAttention("an argument without a batch dimension")
        return torch.cat(values)
    if isinstance(first, tuple | list):
        return tuple(_side_by_side([v[i] for v in values]) for i in range(len(first)))
    plain = first is None or isinstance(first, bool | int | float | str)
    if plain and any(v != first for v in values):
        raise UnsupportedAttention("arguments that differ between prompts")
    return first


def _one_token_of(call: BlockCall) -> BlockJacobian:
    operator = _one_token([call])
    assert operator is not None, "a prompt alone is not measured as it is among others"
    return operator


def _all_eager(calls: Sequence[BlockCall], matmul: Matmul) -> BlockJacobian | StackedOperator:
    own = [_lowered(_eager(call), matmul) for call in calls]
    return own[0] if len(own) == 1 else StackedOperator(own)


def _lowered(operator: BlockJacobian, matmul: Matmul) -> BlockJacobian:
    if matmul != "float32":
        operator.lower(matmul)
    return operator


def _agree(
    output: Float[Tensor, "prompt embed"],
    adjoint: Callable[[Vectors], Vectors],
    calls: Sequence[BlockCall],
) -> bool:
    """Whether an operator has the recorded output and the block's own gradient, to rounding.

    Rounding is that of sums over d in float32 (1.2e-7 × a few hundred); a different attention
    (another scale, a missing bias) is off by far more. In float64 too, since most models take
    their softmax in float32 all the same.
    """
    eps = torch.finfo(torch.float32).eps
    y = torch.cat([call.output[:, -1] for call in calls])
    x = torch.cat([call.input[:, -1] for call in calls])
    error = (output - y).norm(dim=1)
    if not bool((error <= 1e3 * eps * (y - x).norm(dim=1) + 30 * eps * y.norm(dim=1)).all()):
        return False
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(*y.shape, 1, generator=generator, dtype=torch.float64).to(y)
    mine = adjoint(probe)
    theirs = torch.cat([_own_adjoint(c, p) for c, p in zip(calls, probe[..., 0], strict=True)])
    difference = (mine[..., 0] - theirs).norm(dim=1)
    return bool((difference <= 1e4 * eps * theirs.norm(dim=1)).all())


def _own_adjoint(call: BlockCall, u: Float[Tensor, " embed"]) -> Float[Tensor, "1 embed"]:
    """Jᵀ u through the block as it is."""
    with _recording, torch.enable_grad():
        x = _point(call)[:, 0].detach().requires_grad_(True)
        y = call(x[:, None])[:, 0]
    (pulled,) = torch.autograd.grad(y, x, u[None].to(y))
    return pulled - u
