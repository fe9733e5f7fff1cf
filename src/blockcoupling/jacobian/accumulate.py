"""A whole Jacobian in fewer products than one for each of its rows.

Jacobian accumulation by eliminating cuts (Griewank & Walther, Evaluating Derivatives, 2nd ed. 2008,
chapters 9 and 10). The graph of y = f(x) at one token is cut before and after every linear layer;
the pieces in between have Jacobians of simple forms (`pieces`). Rows of ∂y/∂x go back from the
input of one layer to that of the layers before it, in one of two ways:

- through the piece, then through the layers (a product with their weights);
- or, if these layers have more weights than the Jacobian between the two inputs has entries, by one
  product with that Jacobian, which is made of scaled weights. So the gate and the input layer of a
  gated unit, or query, key and value, count once.

The identity that starts at y passes the last layers without a product for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blockcoupling.jacobian.factored import Factored, Leaf, Step
from blockcoupling.jacobian.linear_maps import ConstantWeights, quickest
from blockcoupling.jacobian.pieces import ENTRIES, Identity, Mapped, Piece, recognised

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class _Cut:
    """The input of linear layers: the value, with the graph of the piece that ends there."""

    source: Tensor
    version: int
    value: Tensor


@dataclass(frozen=True, eq=False)
class _Layer(Leaf):
    """A linear layer: its input, its matrix (input, output), and its output, where a piece begins.

    `cut` is None for x itself, where the first piece begins.
    """

    cut: _Cut | None
    leaf: Tensor


class _Cutting(ConstantWeights):
    """A context in which the graph is cut at every linear layer of one token of each prompt."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self._prompts = prompts
        self.cuts: list[_Cut] = []
        self.layers: list[_Layer] = []

    def product(self, x: Tensor, matrix: Tensor) -> Tensor:
        if x.numel() != self._prompts * matrix.shape[0] or not x.requires_grad:
            return super().product(x, matrix)
        cut = self._cut(x)
        with torch.no_grad():
            rows = quickest(cut.value.reshape(self._prompts, -1), matrix)
            output = rows.view(*x.shape[:-1], -1).requires_grad_(True)
        self.layers.append(_Layer(matrix.detach(), cut, output))
        return output.view_as(output)  # what is written into is not the leaf

    def _cut(self, x: Tensor) -> _Cut:
        # Several layers share a cut if their input is the same array and was not written into.
        for cut in self.cuts:
            if cut.source is x and cut.version == x._version:
                return cut
        self.cuts.append(_Cut(x, x._version, x.clone()))
        return self.cuts[-1]


class CutGraph:
    """The autograd graph of y = f(x) at one token of each prompt, cut at its linear layers.

    Args:
        function: (prompt, d) → (prompt, d), prompts independent of each other.
        point: where it is linearized, (prompt, d).
        entries: how many entries the Jacobian of a piece with its layers, or a batch of vectors at
            both ends of a piece, may have; a few times as many are in memory for a moment.
    """

    def __init__(
        self,
        function: Callable[[Float[Tensor, "prompt embed"]], Float[Tensor, "prompt embed"]],
        point: Float[Tensor, "prompt embed"],
        entries: int = ENTRIES,
    ) -> None:
        self._entries = entries
        self._prompts, self._dimension = point.shape
        cutting = _Cutting(len(point))
        with torch.enable_grad(), cutting:
            self._x = point.detach().clone().requires_grad_(True)
            self._y = function(self._x)
        self._weights = sum(layer.matrix.numel() for layer in cutting.layers)
        self._first = _Layer(point, None, self._x)
        self._layers = cutting.layers
        layers = {id(layer.leaf): layer for layer in (self._first, *cutting.layers)}
        # Where pieces end, last to first (None: y), and the layers at which each begins.
        ends = [(None, self._y), *((cut, cut.value) for cut in reversed(cutting.cuts))]
        self._ends = [(cut, end, _begins(end, layers)) for cut, end in ends]

    @property
    def output(self) -> Float[Tensor, "prompt embed"]:
        """The value y at the point."""
        return self._y.detach()

    @property
    def output_requires_grad(self) -> bool:
        """Whether y depends on x."""
        return self._y.requires_grad

    @property
    def products(self) -> float:
        """Work of `jacobian` in products of the whole of f with a vector.

        Assumes that the identity reaches the last layers unchanged.
        """
        through = 0
        for _, end, layers in self._ends[1:]:
            for at, several in _by_cut(layers).items():
                if at is not None:
                    weights = sum(layer.matrix.numel() for layer in several)
                    through += min(weights, self._size(end) * self._size(at.value))
        return self._dimension * (through / self._weights if self._weights else 1)

    @cached_property
    def _pieces(self) -> list[list[list[Piece]]] | None:
        found = []
        for _, end, layers in self._ends:
            leaves = [layer.leaf for layer in layers]
            pieces: list[list[Piece]] | None
            if not leaves:
                pieces = []
            elif self._weights:
                pieces = recognised(end, leaves, self._prompts, self._entries)
            else:  # the whole of f, without a known form
                one = self._prompts == 1
                pieces = [[Mapped(end, x, self._entries)] for x in leaves] if one else None
            if pieces is None:
                return None
            found.append(pieces)
        return found

    @property
    def known(self) -> bool:
        """Whether `jacobian` is possible; always, for one prompt."""
        with torch.no_grad():
            return self._pieces is not None

    @cached_property
    def factored(self) -> Factored | None:
        """Products with the Jacobians of all prompts, if every piece has a form of its own."""
        if not (self._weights and self.known):
            return None
        assert self._pieces is not None
        if any(isinstance(each[0], Mapped) for pieces in self._pieces for each in pieces):
            return None
        after = _by_cut(self._layers)
        return Factored(
            [
                Step(list(zip(layers, pieces, strict=True)), after[cut] if cut else [])
                for (cut, _, layers), pieces in zip(self._ends, self._pieces, strict=True)
            ][::-1],
            self._first,
        )

    def jacobian(self, prompt: int = 0) -> Float[Tensor, "embed embed"]:
        """∂y/∂x of a prompt, rows = output, columns = input."""
        with torch.no_grad():
            return self._jacobian(prompt)

    def _size(self, value: Tensor) -> int:
        return value.numel() // self._prompts

    def _jacobian(self, prompt: int) -> Float[Tensor, "embed embed"]:
        assert self._pieces is not None
        arrived: dict[_Cut | None, Tensor] = {}
        for (cut, end, layers), pieces in zip(self._ends, self._pieces, strict=True):
            rows = None if cut is None else arrived.pop(cut, None)
            if rows is not None or cut is None:
                of = {layer: each[prompt] for layer, each in zip(layers, pieces, strict=True)}
                self._send(self._size(end), of, rows, arrived)
        d = self._dimension
        return arrived[None] if None in arrived else self._x.new_zeros(d, d)

    def _send(
        self,
        width: int,
        pieces: Mapping[_Layer, Piece],
        rows: Float[Tensor, "embed n"] | None,
        arrived: dict[_Cut | None, Tensor],
    ) -> None:
        """Send rows from the end of a piece (None: the identity) to the inputs before it."""
        sent: dict[Piece, Tensor] = {}

        def through(layer: _Layer) -> Float[Tensor, "embed leaf"]:
            piece = pieces[layer]
            if piece not in sent:  # terms of a sum share it
                each = torch.eye(width).to(self._x) if rows is None else rows
                sent[piece] = piece.rows(each)
            return sent[piece]

        for cut, several in _by_cut(pieces).items():
            before = arrived.get(cut)
            if cut is None:
                more = through(self._first)
                # What is added to later must not be a weight that identities have passed on.
                own = more.clone() if isinstance(pieces[self._first], Identity) else more
                arrived[None] = own if before is None else before.add_(more)
                continue
            size = self._size(cut.value)
            if rows is None or sum(s.matrix.numel() for s in several) > width * size:
                arrived[cut] = self._together(rows, [(pieces[s], s) for s in several], size, before)
                continue
            for layer in several:
                before = _product(through(layer), layer.matrix.mT, before)
            assert before is not None
            arrived[cut] = before

    def _together(
        self,
        rows: Float[Tensor, "embed n"] | None,
        several: list[tuple[Piece, _Layer]],
        size: int,
        before: Tensor | None,
    ) -> Float[Tensor, "embed size"]:
        """Rows through pieces and layers with one input, by the Jacobian of all of them.

        A part of its columns is in memory at a time.
        """
        # Identities last: what they return may be a weight, and must not be written into.
        several = sorted(several, key=lambda one: isinstance(one[0], Identity))

        def jacobian(part: slice) -> Tensor:
            total: Tensor | None = None
            for piece, layer in several:
                total = piece.columns(layer.matrix.mT[:, part], total)
            assert total is not None
            return total

        if rows is None:
            return jacobian(slice(None))
        together = max(1, self._entries // rows.shape[1])
        if size <= together:
            return _product(rows, jacobian(slice(None)), before)
        found = rows.new_empty(len(rows), size)
        for start in range(0, size, together):
            part = slice(start, start + together)
            some = None if before is None else before[:, part]
            found[:, part] = _product(rows, jacobian(part), some)
        return found


def _product(rows: Tensor, matrix: Tensor, before: Tensor | None) -> Tensor:
    return rows @ matrix if before is None else torch.addmm(before, rows, matrix)


def _by_cut(layers: Iterable[_Layer]) -> dict[_Cut | None, list[_Layer]]:
    """Layers by their input."""
    found: dict[_Cut | None, list[_Layer]] = {}
    for layer in layers:
        found.setdefault(layer.cut, []).append(layer)
    return found


def _begins(end: Tensor, layers: Mapping[int, _Layer]) -> list[_Layer]:
    """The layers whose outputs the graph of a value begins with.

    Args:
        end: the value.
        layers: by the `id` of their leaf; other leaves, such as parameters, are ignored.
    """
    found: list[_Layer] = []
    seen: set[Any] = set()
    pending = [end.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = id(getattr(node, "variable", None))
        if leaf in layers:
            found.append(layers[leaf])
        pending.extend(following for following, _ in node.next_functions)
    return found
