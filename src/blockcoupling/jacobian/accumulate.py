"""A whole Jacobian in fewer products than one for each of its rows.

Jacobian accumulation by eliminating cuts (Griewank & Walther, Evaluating Derivatives, 2nd ed. 2008,
chapters 9 and 10). The graph of y = f(x) at one token is cut at the input of every linear layer.
Rows of ∂y/∂x go back from cut to cut, in one of two ways:

- row by row through the layers in between (a vector-Jacobian product);
- or, if these layers have more weights than the Jacobian between the cuts has entries, by one
  product with that Jacobian. Its columns cost no products: unit vectors go forward, and a linear
  layer turns them into columns of its weights. So the gate and the input layer of a gated unit, or
  query, key and value, count once.

The unit vectors that start at y pass the last layers without a product for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blockcoupling.jacobian.linear_maps import ConstantProduct, ConstantWeights, rows_of

if TYPE_CHECKING:
    from jaxtyping import Float


# Some 16 MB in float32: large enough for the overhead of an operation to be small.
ENTRIES = 2**22


@dataclass(frozen=True, eq=False)
class _Cut:
    """A place where the graph is cut: `value` ends one piece, `leaf` begins the next."""

    source: Tensor
    version: int
    value: Tensor
    leaf: Tensor


class _Cutting(ConstantWeights):
    """A context in which the graph is cut at the input of every linear layer of one token."""

    def __init__(self) -> None:
        super().__init__()
        self.cuts: list[_Cut] = []
        self.weights = 0

    def product(self, x: Tensor, matrix: Tensor) -> Tensor:
        if x.numel() != matrix.shape[0] or not x.requires_grad:
            return super().product(x, matrix)
        self.weights += matrix.numel()
        return ConstantProduct.apply(self._leaf(x), matrix, rows_of)

    def _leaf(self, x: Tensor) -> Tensor:
        # Several layers share a cut if their input is the same array and was not written into.
        for cut in self.cuts:
            if cut.source is x and cut.version == x._version:
                return cut.leaf
        value = x.clone()
        self.cuts.append(_Cut(x, x._version, value, value.detach().requires_grad_(True)))
        return self.cuts[-1].leaf


class CutGraph:
    """The autograd graph of y = f(x) at one token, cut at the inputs of linear layers.

    Args:
        function: (1, d) → (1, d).
        point: where it is linearized, (1, d).
        entries: how many entries a batch of vectors may have at both ends of a piece; a few times
            as many are in memory for a moment.
    """

    def __init__(
        self,
        function: Callable[[Float[Tensor, "1 embed"]], Float[Tensor, "1 embed"]],
        point: Float[Tensor, "1 embed"],
        entries: int = ENTRIES,
    ) -> None:
        self._entries = entries
        cutting = _Cutting()
        with torch.enable_grad(), cutting:
            self._x = point.detach().clone().requires_grad_(True)
            self._y = function(self._x)
        self._cuts, self._weights = cutting.cuts, cutting.weights
        leaves = {id(leaf): leaf for leaf in (self._x, *(cut.leaf for cut in self._cuts))}
        # For each end of a piece: the leaves that it starts from, and the weights at each.
        self._pieces = [_weights_from(cut.value, leaves) for cut in self._cuts]
        self._last = _weights_from(self._y, leaves)

    @property
    def output(self) -> Float[Tensor, "1 embed"]:
        """The value y at the point."""
        return self._y.detach()

    @property
    def output_requires_grad(self) -> bool:
        """Whether y depends on x."""
        return self._y.requires_grad

    @property
    def products(self) -> float:
        """Work of `jacobian` in products of the whole of f with a vector.

        Assumes that unit vectors reach the last layers unchanged.
        """
        through = sum(
            min(weights, cut.value.numel() * leaf.numel())
            for cut, piece in zip(self._cuts, self._pieces, strict=True)
            for leaf, weights in piece
        )
        return self._x.numel() * (through / self._weights if self._weights else 1)

    def jacobian(self) -> Float[Tensor, "embed embed"]:
        """∂y/∂x, rows = output, columns = input."""
        with torch.no_grad():
            return self._jacobian()

    def _jacobian(self) -> Float[Tensor, "embed embed"]:
        d = self._y.numel()
        arrived = _Arrived(d)
        leaves = [leaf for leaf, _ in self._last]
        to_cuts = [leaf for leaf in leaves if leaf is not self._x]
        if to_cuts:
            # In one batch: unit vectors turn the first weights into views of them.
            (unit,) = _units(d, d, self._y)
            for leaf, rows in zip(to_cuts, _pull(self._y, to_cuts, unit), strict=True):
                arrived.lend(leaf, rows)
            del unit, rows
        for cut, piece in zip(reversed(self._cuts), reversed(self._pieces), strict=True):
            sent = arrived.take(cut.leaf)
            if sent is not None and cut.value.requires_grad:
                self._send(cut.value, piece, sent, arrived)
        there, before = arrived.adding(self._x)
        if before is None:
            there.zero_()
        if len(to_cuts) < len(leaves):  # past all layers, usually the skip connection
            start = 0
            for unit in _units(d, self._together(2 * d), self._y):
                there[start : start + len(unit)] += _pull(self._y, [self._x], unit)[0]
                start += len(unit)
        return there

    def _send(
        self,
        end: Tensor,
        piece: list[tuple[Tensor, int]],
        rows: Float[Tensor, "embed n"],
        arrived: _Arrived,
    ) -> None:
        """Send rows from the end of a piece to the leaves that it starts from."""
        size = end.numel()
        whole = [leaf for leaf, weights in piece if weights > size * leaf.numel()]
        one_by_one = [leaf for leaf, weights in piece if weights <= size * leaf.numel()]
        if one_by_one:
            together = self._together(size + max(leaf.numel() for leaf in one_by_one))
            added = [arrived.adding(leaf) for leaf in one_by_one]
            for start in range(0, len(rows), together):
                part = slice(start, start + together)
                pulled = _pull(end, one_by_one, rows[part])
                for (there, before), more in zip(added, pulled, strict=True):
                    if before is None:
                        there[part] = more
                    else:
                        torch.add(before[part], more, out=there[part])
        for leaf in whole:
            there, before = arrived.adding(leaf)
            for start, columns in self._columns(end, leaf):
                part = slice(start, start + len(columns))
                if before is None:
                    torch.mm(rows, columns.mT, out=there[:, part])
                else:
                    torch.addmm(before[:, part], rows, columns.mT, out=there[:, part])

    def _columns(self, end: Tensor, leaf: Tensor) -> Iterator[tuple[int, Float[Tensor, "k n"]]]:
        """∂end/∂leaf, some columns at a time, each as a row."""
        with torch.enable_grad():
            u = torch.zeros_like(end, requires_grad=True)
            (pulled,) = torch.autograd.grad(end, leaf, u, create_graph=True)
        start = 0
        for unit in _units(leaf.numel(), self._together(end.numel() + leaf.numel()), leaf):
            (columns,) = _pull(pulled, [u], unit)
            yield start, columns
            start += len(unit)

    def _together(self, width: int) -> int:
        return max(1, self._entries // width)


class _Arrived:
    """Rows of ∂y/∂leaf that have arrived at leaves so far.

    Args:
        d: number of rows.
    """

    def __init__(self, d: int) -> None:
        self._d = d
        self._lent: dict[int, Tensor] = {}
        self._own: dict[int, Tensor] = {}

    def lend(self, leaf: Tensor, rows: Float[Tensor, "embed n"]) -> None:
        """Add rows that must not be written into, as they may be views of weights."""
        self._lent[id(leaf)] = rows

    def adding(
        self, leaf: Tensor
    ) -> tuple[Float[Tensor, "embed n"], Float[Tensor, "embed n"] | None]:
        """Where to write the sum with new rows (all of them), and the rows so far, if any.

        Both are the same array if that may be written into.
        """
        key = id(leaf)
        if key in self._own:
            return self._own[key], self._own[key]
        self._own[key] = leaf.new_empty(self._d, leaf.numel())
        return self._own[key], self._lent.pop(key, None)

    def take(self, leaf: Tensor) -> Float[Tensor, "embed n"] | None:
        """Remove and return the rows at a leaf."""
        found = self._own.pop(id(leaf), None)
        return self._lent.pop(id(leaf), None) if found is None else found


def _pull(
    end: Tensor, leaves: list[Tensor], rows: Float[Tensor, "k n"]
) -> list[Float[Tensor, "k m"]]:
    """∂(end · row)/∂leaf for each row and each leaf."""

    def one(row: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(end, leaves, row.view_as(end), retain_graph=True)

    pulled = torch.vmap(one)(rows)
    return [p.reshape(len(rows), -1) for p in pulled]


def _units(size: int, together: int, like: Tensor) -> Iterator[Float[Tensor, "k n"]]:
    """Rows of the identity, some at a time."""
    for start in range(0, size, together):
        unit = like.new_zeros(min(together, size - start), size)
        unit.diagonal(start).fill_(1)
        yield unit


def _weights_from(end: Tensor, leaves: Mapping[int, Tensor]) -> list[tuple[Tensor, int]]:
    """The leaves that the graph of a value starts from, and how many weights act on each directly.

    Args:
        end: the value.
        leaves: by `id`; other leaves of the graph, such as parameters, are ignored.
    """
    found: dict[int, int] = {}
    seen: set[Any] = set()
    pending = [end.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = id(getattr(node, "variable", None))
        if leaf in leaves:
            found.setdefault(leaf, 0)
        following = [function for function, _ in node.next_functions]
        begins = id(getattr(following[0], "variable", None) if following else None)
        if begins in leaves and (matrix := getattr(node, "matrix", None)) is not None:
            found[begins] = found.get(begins, 0) + matrix.numel()
        pending.extend(following)
    return [(leaves[leaf], weights) for leaf, weights in found.items()]
