"""The Jacobian of a piece of a block between its linear layers, in the form that its structure has.

Between the outputs of linear layers and the input of the next one a block has activations, gates,
norms and the attention of one token. Their Jacobians D = ∂end/∂leaf are mostly diagonal, of one
block for each head, or diagonal plus a matrix of rank one or two. A few products then recover all
of D, as in the colouring of sparse Jacobians (Curtis, Powell & Reid 1974). No form is assumed: each
is recovered, then compared with a product with a random vector, and where it differs D is applied
by automatic differentiation, column by column.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.transformer.agreement import ROUNDING, random_like

if TYPE_CHECKING:
    from jaxtyping import Float

# Some 16 MB in float32: large enough for the overhead of an operation to be small.
ENTRIES = 2**22
# Singular values below this, relative to the first, are rounding.
_NOTHING = 1e-6


class Piece(ABC):
    """D, (end, leaf)."""

    @abstractmethod
    def rows(self, rows: Float[Tensor, "k end"]) -> Float[Tensor, "k leaf"]:
        """R D."""

    @abstractmethod
    def columns(
        self, columns: Float[Tensor, "leaf k"], to: Tensor | None = None
    ) -> Float[Tensor, "end k"]:
        """D C, added to an array that may be written into, if one is given."""


class Identity(Piece):
    """D = I; what it returns may be what it was given."""

    def rows(self, rows: Float[Tensor, "k end"]) -> Float[Tensor, "k leaf"]:
        """R itself."""
        return rows

    def columns(
        self, columns: Float[Tensor, "leaf k"], to: Tensor | None = None
    ) -> Float[Tensor, "end k"]:
        """C itself, or the sum."""
        return columns if to is None else to + columns


class Scaling(Piece):
    """A diagonal D."""

    def __init__(self, diagonal: Float[Tensor, " end"]) -> None:
        self._diagonal = diagonal

    def rows(self, rows: Float[Tensor, "k end"]) -> Float[Tensor, "k leaf"]:
        """Scaled columns of R."""
        return rows * self._diagonal

    def columns(
        self, columns: Float[Tensor, "leaf k"], to: Tensor | None = None
    ) -> Float[Tensor, "end k"]:
        """Scaled rows of C."""
        scale = self._diagonal[:, None]
        return columns * scale if to is None else to.addcmul_(columns, scale)


class LowRank(Piece):
    """D = diag(a) + U Vᵀ."""

    def __init__(
        self,
        diagonal: Float[Tensor, " end"],
        left: Float[Tensor, "end rank"],
        right: Float[Tensor, "end rank"],
    ) -> None:
        self._diagonal, self._left, self._right = diagonal, left, right

    def rows(self, rows: Float[Tensor, "k end"]) -> Float[Tensor, "k leaf"]:
        """R diag(a) + (R U) Vᵀ."""
        return (rows * self._diagonal).addmm_(rows @ self._left, self._right.mT)

    def columns(
        self, columns: Float[Tensor, "leaf k"], to: Tensor | None = None
    ) -> Float[Tensor, "end k"]:
        """diag(a) C + U (Vᵀ C)."""
        scale = self._diagonal[:, None]
        scaled = columns * scale if to is None else to.addcmul_(columns, scale)
        return scaled.addmm_(self._left, self._right.mT @ columns)


class Blocks(Piece):
    """A block-diagonal D, of equal blocks."""

    def __init__(self, blocks: Float[Tensor, "block end_of_it leaf_of_it"]) -> None:
        self._blocks = blocks

    def rows(self, rows: Float[Tensor, "k end"]) -> Float[Tensor, "k leaf"]:
        """Each block's part of R times the block."""
        count, height, _ = self._blocks.shape
        parts = rows.view(len(rows), count, height).transpose(0, 1)
        return torch.bmm(parts, self._blocks).transpose(0, 1).reshape(len(rows), -1)

    def columns(
        self, columns: Float[Tensor, "leaf k"], to: Tensor | None = None
    ) -> Float[Tensor, "end k"]:
        """Each block times its part of C."""
        count, height, width = self._blocks.shape
        parts = columns.reshape(count, width, -1)
        if to is None:
            return torch.bmm(self._blocks, parts).flatten(0, 1)
        to.view(count, height, -1).baddbmm_(self._blocks, parts)
        return to


class Joined(Piece):
    """Several D side by side: the leaf is an array that is split (a gate and its input)."""

    def __init__(self, parts: Sequence[Piece], widths: Sequence[int]) -> None:
        self._parts, self._widths = list(parts), list(widths)

    def rows(self, rows: Float[Tensor, "k end"]) -> Float[Tensor, "k leaf"]:
        """The products side by side."""
        return torch.cat([part.rows(rows) for part in self._parts], dim=1)

    def columns(
        self, columns: Float[Tensor, "leaf k"], to: Tensor | None = None
    ) -> Float[Tensor, "end k"]:
        """The sum of all parts' products."""
        pieces = zip(self._parts, columns.split(self._widths), strict=True)
        for part, some in pieces:
            if to is None:
                to = part.columns(some)
                to = to.clone() if to is some else to
            else:
                to = part.columns(some, to)
        assert to is not None
        return to


class Mapped(Piece):
    """A D without a known form, of one prompt, by automatic differentiation.

    Args:
        end, leaf: both ends of the piece, in its graph.
        entries: how many entries a batch of vectors may have at both ends; a few times as many are
            in memory for a moment.
    """

    def __init__(self, end: Tensor, leaf: Tensor, entries: int = ENTRIES) -> None:
        self._end, self._leaf = end, leaf
        self._together = max(1, entries // (end.numel() + leaf.numel()))
        self._transposed: tuple[Tensor, Tensor] | None = None

    def rows(self, rows: Float[Tensor, "k end"]) -> Float[Tensor, "k leaf"]:
        """By vector-Jacobian products."""
        parts = rows.split(self._together)
        return torch.cat([pull(self._end, [self._leaf], part)[0] for part in parts])

    def columns(
        self, columns: Float[Tensor, "leaf k"], to: Tensor | None = None
    ) -> Float[Tensor, "end k"]:
        """By derivatives of the vector-Jacobian product."""
        if self._transposed is None:
            self._transposed = transposed(self._end, self._leaf)
        pulled, u = self._transposed
        parts = [pull(pulled, [u], part)[0].mT for part in columns.mT.split(self._together)]
        pushed = torch.cat(parts, dim=1)
        return pushed if to is None else to.add_(pushed)


def transposed(end: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
    """The linear map u ↦ uᵀ D as a graph: its value at u = 0, and u."""
    with torch.enable_grad():
        u = torch.zeros_like(end, requires_grad=True)
        (pulled,) = torch.autograd.grad(end, leaf, u, create_graph=True)
    return pulled, u


def pull(
    end: Tensor, leaves: Sequence[Tensor], rows: Float[Tensor, "k ends"]
) -> list[Float[Tensor, "k leaves"]]:
    """∂(end · row)/∂leaf for each leaf and each row; of several prompts, one after the other."""

    def one(row: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(end, leaves, row.view_as(end), retain_graph=True)

    pulled = one(rows[0]) if len(rows) == 1 else torch.vmap(one)(rows)
    return [each.reshape(len(rows), -1) for each in pulled]


@cache
def _probes(
    prompts: int, size: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "prompt 7 size"]:
    """Cotangents to recognise a piece by.

    All ones; random numbers, other ones for every prompt; a not-a-number in the first place; and
    random signs, twice at every even place and twice at every odd one.
    """
    probes = torch.zeros(prompts, 7, size, dtype=torch.float64)
    probes[:, 0] = 1
    probes[:, 1] = random_like(probes[:, 1])
    probes[:, 2, 0] = torch.nan
    signs = random_like(probes[0, 3:], seed=1).sign()
    probes[:, 3:5, ::2], probes[:, 5:, 1::2] = signs[:2, ::2], signs[2:, 1::2]
    return probes.to(device, dtype)


def recognised(
    end: Tensor, leaves: Sequence[Tensor], prompts: int = 1, entries: int = ENTRIES
) -> list[list[Piece]] | None:
    """∂end/∂leaf for each leaf and prompt, in the simplest form that agrees with a random product.

    The form is chosen by what is given here alone, so that a number has the same bits whatever was
    measured before it. Leaves that act alike (the terms of a sum) share their objects.

    Args:
        end: a value with its graph; the first axis is that of the prompts, which are independent.
        leaves: the leaves of the graph that the value depends on, likewise.
        prompts: P.
        entries: see `Mapped`.

    Returns:
        For each leaf, a piece for each prompt. None if a piece of several prompts has no known
        form: one prompt at a time, it is differentiated automatically.
    """
    probes = _probes(prompts, end.numel() // prompts, end.dtype, end.device)
    pulled = _pull_each(end, leaves, probes)
    found = [_elementwise(each, probes) for each in pulled]
    if not all(found):
        heads = _heads(end, leaves, pulled, probes)
        found = [simple or other for simple, other in zip(found, heads, strict=True)]
    for index, (leaf, each) in enumerate(zip(leaves, pulled, strict=True)):
        before = enumerate(pulled[:index])
        alike = (i for i, other in before if torch.equal(other[:, 3:], each[:, 3:]))
        if (twin := next(alike, None)) is not None:
            found[index] = found[twin]
        elif found[index] is None:
            found[index] = _low_rank(end, leaf, each, probes)
            if found[index] is None and prompts == 1:
                found[index] = [Mapped(end, leaf, entries)]
    pieces = [piece for piece in found if piece is not None]
    return pieces if len(pieces) == len(leaves) else None


def _pull_each(
    end: Tensor, leaves: Sequence[Tensor], rows: Float[Tensor, "prompt k end"]
) -> list[Float[Tensor, "prompt k leaf"]]:
    """Every prompt's rows D, for each leaf."""
    prompts, k, _ = rows.shape
    pulled = pull(end, leaves, rows.transpose(0, 1).reshape(k, -1))
    return [each.view(k, prompts, -1).transpose(0, 1) for each in pulled]


def _agree(mine: Float[Tensor, "prompt leaf"], pulled: Float[Tensor, "prompt 7 leaf"]) -> bool:
    """Whether all products with the random vectors are those that a recovered D gives."""
    wanted = pulled[:, 1]
    off = torch.linalg.vector_norm(mine - wanted, dim=1)
    return bool((off <= ROUNDING * torch.linalg.vector_norm(wanted, dim=1)).all())


def _elementwise(pulled: Tensor, probes: Tensor) -> list[Piece] | None:
    """A diagonal D, or several of them side by side or in turn, from its products."""
    size, ones, z = probes.shape[2], pulled[:, 0], probes[:, 1]
    count = ones.shape[1] // size
    if count * size != ones.shape[1]:
        return None
    if _agree(ones * z.repeat(1, count), pulled):
        if count > 1:
            split = ones.unflatten(1, (count, size))
            return [Joined([Scaling(a) for a in each], [size] * count) for each in split]
        return [Identity()] * len(ones) if bool((ones == 1).all()) else [*map(Scaling, ones)]
    if _agree(ones * z.repeat_interleave(count, dim=1), pulled):
        return [Blocks(each) for each in ones.view(-1, size, 1, count)]
    return None


def _heads(
    end: Tensor, leaves: Sequence[Tensor], pulled: Sequence[Tensor], probes: Tensor
) -> list[list[Piece] | None]:
    """D of one block for each head, for the leaves where it is so.

    What the first entry of the end depends on gives the sizes: not-a-numbers spread along every
    dependence, whatever the values are.
    """
    prompts, _, size = probes.shape
    parts = [_parts(each[0, 2].isnan(), size) for each in pulled]
    counts = {count for some in parts for _, count in some if count > 1}
    split = [i for i, some in enumerate(parts) if any(count > 1 for _, count in some)]
    found: list[list[Piece] | None] = [None] * len(leaves)
    if not counts:
        return found
    # All heads at once: one product for each entry of the largest head.
    fewest = min(counts)
    combs = torch.eye(size // fewest, dtype=end.dtype, device=end.device).repeat(1, fewest)
    combs = combs.expand(prompts, -1, -1)
    for i, rows in zip(split, _pull_each(end, [leaves[i] for i in split], combs), strict=True):
        widths = [width for width, _ in parts[i]]
        blocks: list[list[Piece]] = []
        own = zip(parts[i], rows.split(widths, 2), pulled[i].split(widths, 2), strict=True)
        for (width, most), combed, products in own:
            tried = (
                _blocks(combed, fewest, count)
                for count in sorted(counts, reverse=True)
                if count <= most and width % count == 0 and count % fewest == 0
            )
            for form in tried:
                z = probes[:, 1].reshape(*form.shape[:2], 1, -1)
                if _agree((z @ form).flatten(1), products):
                    blocks.append([Blocks(each) for each in form])
                    break
        if len(blocks) == len(widths):
            together = zip(*blocks, strict=True)
            found[i] = blocks[0] if len(widths) == 1 else [Joined(b, widths) for b in together]
    return found


def _parts(depends: Tensor, size: int) -> list[tuple[int, int]]:
    """The parts of a leaf that is split: their widths, and how many heads there may be in each.

    Args:
        depends: on which entries of the leaf the first entry of the end depends; the first head's
            entries of every part.
        size: of the end, which has as many heads.
    """
    depends = depends.cpu()
    before = depends.roll(1)
    before[0] = False
    starts = (depends & ~before).nonzero()[:, 0].tolist()
    if not starts or starts[0] != 0:
        return []
    widths = [b - a for a, b in pairwise([*starts, len(depends)])]
    found = []
    for part in depends.split(widths):
        width, most = len(part), len(part) // int(part.sum())
        common = math.gcd(width, size)
        found.append((width, next(count for count in range(most, 0, -1) if common % count == 0)))
    return found


def _blocks(
    rows: Float[Tensor, "prompt row width"], fewest: int, count: int
) -> Float[Tensor, "prompt count height width_of_it"]:
    """The `count` blocks of D, from its products with combs of `fewest` teeth."""
    within, width = count // fewest, rows.shape[2] // count
    apart = rows.reshape(len(rows), within, -1, fewest, within, width).diagonal(dim1=1, dim2=4)
    return apart.permute(0, 2, 4, 1, 3).flatten(1, 2)


def _low_rank(end: Tensor, leaf: Tensor, pulled: Tensor, probes: Tensor) -> list[Piece] | None:
    """D = diag(a) + U Vᵀ of rank one or two, as norms have; recovered in float64.

    Products zᵀ D with z = 0 at every other entry contain only V there. So V is known at each half
    of the entries up to a change of basis, and the other half's products give that and a.
    """
    prompts, _, size = probes.shape
    if pulled.shape[2] != size or size < 16:
        return None
    halves, z = (each[:, 3:].cpu().double() for each in (pulled, probes))
    if not bool(halves.isfinite().all()):
        return None
    diagonal = torch.empty(prompts, size, dtype=torch.float64)
    for half, own, other in ((0, slice(2), slice(2, 4)), (1, slice(2, 4), slice(2))):
        here = slice(half, None, 2)
        basis = halves[:, other, here]  # V of this half
        # p = a y + g·basis and q = a w + h·basis with unknown a, g, h: w p − y q is free of a.
        p, q = halves[:, own, here].unbind(1)
        y, w = z[:, own, here].unbind(1)
        known = torch.cat([w[:, None] * basis, -y[:, None] * basis], dim=1).mT
        fitted = torch.linalg.lstsq(known, (w * p - y * q)[..., None], driver="gelsd")[0]
        off = fitted.view(-1, 2, 2) @ basis
        diagonal[:, here] = ((p - off[:, 0]) * y + (q - off[:, 1]) * w) / 2
    _, s, vh = torch.linalg.svd(halves - diagonal[:, None] * z, full_matrices=False)
    rank = max(1, int((s[:, :2] > _NOTHING * s[:, :1]).sum(1).max()))
    a, right = diagonal.to(probes), vh[:, :rank].mT.to(probes)
    of_u, u = transposed(end, leaf)
    (pushed,) = _pull_each(of_u, [u], right.mT)
    left = pushed.mT - a[..., None] * right
    z = probes[:, 1]
    if not _agree(a * z + (right @ (left.mT @ z[..., None]))[..., 0], pulled):
        return None
    return [LowRank(*each) for each in zip(a, left, right, strict=True)]
