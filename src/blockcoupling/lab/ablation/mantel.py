"""Whether two matrices over the same blocks go together: correlation by permuted blocks.

Entries of a matrix share rows and columns, so that their number is no number of independent
observations. The blocks of one matrix are permuted instead, rows and columns together (Mantel,
1967; QAP, Hubert & Schultz, 1976). With further matrices held fixed, what is permuted is the
residual of the one matrix from them, and the statistic is a partial correlation with them still in
it: double semi-partialing (Dekker, Krackhardt & Snijders, Psychometrika 72, 2007), which holds its
level where raw permutations do not. All on ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations as all_orders
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import rankdata

from blockcoupling.statistics.partial import partial_correlation

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LEAST_ENTRIES = 4  # and one more for each matrix held fixed; as for every correlation here
_AT_ONCE = 1000
_TIE = 1e-12  # statistics nearer than this are the same one, rounded differently


class Mantel(NamedTuple):
    """A rank correlation of matrices over blocks, and what permuted blocks say of it.

    Attributes:
        rho: Spearman's, partial where something is held fixed; NaN where it has none.
        p: two-sided: share of the permutations with a statistic as far from 0; NaN likewise.
        entries: how many entries both matrices have.
        permutations: how many; all of them where `exact`.
        exact: whether every permutation was taken rather than some drawn.
    """

    rho: float
    p: float
    entries: int
    permutations: int
    exact: bool


def mantel(
    y: Float[np.ndarray, block * block_other],
    x: Float[np.ndarray, block * block_other],
    given: Sequence[Float[np.ndarray, block * block_other]] = (),
    *,
    permutations: int = 9999,
    seed: int = 0,
) -> Mantel:
    """Correlate two matrices, or two vectors, over the same blocks.

    Only entries of `y` that are there (not NaN; off the diagonal of a matrix) are used: all pairs,
    those within a distance, or the upper triangle. They are what ranks and fits are over; further
    entries of `x`, which permutations put at the places of `y`, have the rank and the residual
    that they would have among them. Entries that `x` or `given` lack are left out of every
    permutation that puts them there.

    Args:
        y: what is explained, (L, L) or (L).
        x: what may go with it, of the same shape; its blocks are permuted.
        given: matrices or vectors held fixed.
        permutations: how many are drawn; where all L! are no more than that, they are all taken.
        seed: of the draws.
    """
    y, x, *fixed = (np.asarray(each, float).copy() for each in (y, x, *given))
    count, ndim = len(y), y.ndim
    if ndim == 2:
        for each in (y, x, *fixed):
            np.fill_diagonal(each, np.nan)
    places = np.argwhere(np.isfinite(y) & np.all(np.isfinite([y, *fixed]), axis=0))
    there = tuple(places.T)
    own = np.isfinite(x[there])
    entries = int(own.sum())
    none = Mantel(math.nan, math.nan, entries, 0, False)
    if entries < LEAST_ENTRIES + len(fixed):
        return none
    used = [each[there][own] for each in (y, x, *fixed)]
    if min(np.ptp(each) for each in used[:2]) == 0:
        return none

    rho = _rho(*used)
    if not np.isfinite(rho):  # what is held fixed determines x or y, to their ranks
        return none

    ranks = [_ranked(each, each[there][own]) for each in (x, *fixed)]
    residual = _residual(ranks[0], ranks[1:], tuple(axis[own] for axis in there))
    heights = rankdata(y[there])
    held = np.stack([np.ones(len(places)), *(each[there] for each in ranks[1:])])
    observed = _statistic(heights, residual[there][None], held)[0]
    if not np.isfinite(observed):
        return none
    exact = math.factorial(count) <= permutations
    taken, extreme = 0, 0
    for orders in _orders(count, None if exact else permutations, seed):
        moved = residual[tuple(orders[:, axis] for axis in there)]
        found = np.abs(_statistic(heights, moved, held))
        taken += len(orders)
        extreme += int((found >= abs(observed) - _TIE).sum())
    # What was drawn leaves the order as it is out, which is one of all orders.
    p = extreme / taken if exact else (1 + extreme) / (1 + taken)
    return Mantel(rho, p, entries, taken, exact)


def _rho(y: np.ndarray, x: np.ndarray, *fixed: np.ndarray) -> float:
    """Spearman's (partial) correlation of the entries that there are."""
    ranks = [rankdata(each) for each in (y, x, *fixed)]
    if not fixed:
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    return partial_correlation(ranks[1], ranks[0], np.stack(ranks[2:], axis=1)).r


def _ranked(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Ranks among the entries that are used; others take the rank they would have there."""
    ordered, known = np.sort(used), np.isfinite(values)
    ranks = np.full(values.shape, np.nan)
    below, upto = (np.searchsorted(ordered, values[known], side) for side in ("left", "right"))
    ranks[known] = (below + upto + 1) / (2 * len(used))
    return ranks


def _residual(
    x: np.ndarray, fixed: Sequence[np.ndarray], used: tuple[np.ndarray, ...]
) -> np.ndarray:
    """What is left of x, everywhere, after a linear fit on matrices over the entries used."""
    design = np.stack([np.ones_like(x), *fixed], axis=-1)
    return x - design @ np.linalg.lstsq(design[used], x[used], rcond=None)[0]


def _statistic(
    y: Float[np.ndarray, " entry"],
    moved: Float[np.ndarray, "order entry"],
    held: Float[np.ndarray, "given entry"],
) -> Float[np.ndarray, " order"]:
    """Partial correlation of y with each row of `moved`, given `held`; 0 for a constant row."""
    if np.isfinite(moved).all():  # one projection for all
        basis = np.linalg.svd(held, full_matrices=False)[2][: np.linalg.matrix_rank(held)]
        y, along = y - basis.T @ (basis @ y), moved @ basis.T
        xx = np.einsum("pn,pn->p", moved, moved)
        left = xx - np.einsum("pa,pa->p", along, along)
        scale = np.sqrt(np.clip(left, 0, None) * (y @ y))
        flat = left <= _TIE * xx
        return np.where(flat, 0.0, moved @ y / np.where(flat, 1.0, scale))
    mask = np.isfinite(moved).astype(float)
    x = np.where(mask > 0, moved, 0.0)
    normal = np.einsum("pn,an,bn->pab", mask, held, held, optimize=True)
    inverse = np.linalg.pinv(normal, hermitian=True)
    on_x = np.einsum("pn,an->pa", x, held)
    on_y = np.einsum("pn,an->pa", mask * y, held)

    def product(one: np.ndarray, other: np.ndarray, together: np.ndarray) -> np.ndarray:
        return together - np.einsum("pa,pab,pb->p", one, inverse, other, optimize=True)

    xy = product(on_x, on_y, x @ y)
    xx, yy = product(on_x, on_x, (x * x).sum(1)), product(on_y, on_y, mask @ (y * y))
    scale = np.sqrt(np.clip(xx, 0, None) * np.clip(yy, 0, None))
    flat = scale <= _TIE * np.sqrt((x * x).sum(1) * (mask @ (y * y)) + _TIE)
    return np.where(flat, 0.0, xy / np.where(flat, 1.0, scale))


def _orders(count: int, drawn: int | None, seed: int) -> Iterator[Int[np.ndarray, "order block"]]:
    """All orders of so many blocks, or as many as are to be drawn, some at a time."""
    if drawn is None:
        every = np.array(list(all_orders(range(count))))
        yield from np.array_split(every, -(-len(every) // _AT_ONCE))
        return
    random = np.random.default_rng(seed)
    for start in range(0, drawn, _AT_ONCE):
        some = np.tile(np.arange(count), (min(_AT_ONCE, drawn - start), 1))
        yield random.permuted(some, axis=1)
