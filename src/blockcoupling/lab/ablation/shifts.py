"""Rank correlation of two matrices over the same blocks, tested by shifted block orders.

Entries of a matrix share rows and columns, so that they are not independent observations. Free
permutations of the blocks (Mantel, 1967; QAP) allow for that, but not for the order of the blocks:
neighbouring blocks resemble each other, and two profiles that are smooth in depth then correlate by
chance far more often than permuted ones (Guillot & Rousset, Methods Ecol. Evol. 4, 2013). Here the
blocks of one matrix are shifted cyclically and reflected, which keeps neighbours together. All
correlations are of ranks, partial ones where other matrices are controlled for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LEAST_ENTRIES = 4  # and one more for each covariate
_TIE = 1e-12  # statistics nearer than this are equal up to rounding


class ShiftTest(NamedTuple):
    """A rank correlation of matrices over blocks.

    Attributes:
        rho: Spearman's, partial where something is controlled for; NaN where undefined.
        p: two-sided, share of the block orders with a correlation as far from 0; NaN likewise.
        entries: number of entries that both matrices have.
        permutations: number of block orders in which the correlation is defined, at most 2 L.
        spread: standard deviation of the correlation over the other orders; NaN for fewer than two.
    """

    rho: float
    p: float
    entries: int
    permutations: int
    spread: float


def shift_test(
    y: Float[np.ndarray, block * block_other],
    x: Float[np.ndarray, block * block_other],
    given: Sequence[Float[np.ndarray, block * block_other]] = (),
) -> ShiftTest:
    """Correlate two matrices, or two vectors, over the same blocks.

    Entries that are NaN, and the diagonal of matrices, are excluded: y may have all pairs, those
    within a distance, or the upper triangle. A shift puts pairs across the seam, between the last
    block and the first: these are not as far apart as they were, and are excluded as well.

    Args:
        y: outcome, (L, L) or (L).
        x: predictor, of the same shape; its blocks are shifted and reflected.
        given: matrices or vectors to control for; they stay in place, as y does.
    """
    y, x, *fixed = (np.asarray(each, float) for each in (y, x, *given))
    there = np.all(np.isfinite([y, *fixed]), axis=0)
    if y.ndim == 2:
        there &= ~np.eye(len(y), dtype=bool)
    own = there & np.isfinite(x)
    observed = _rho(y[own], x[own], [each[own] for each in fixed])
    if np.isnan(observed):
        return ShiftTest(np.nan, np.nan, int(own.sum()), 0, np.nan)
    found = np.array([observed, *(_moved(y, x, fixed, there, order) for order in _orders(len(y)))])
    found = found[np.isfinite(found)]
    p = float((np.abs(found) >= abs(observed) - _TIE).mean())
    spread = float(found[1:].std(ddof=1)) if len(found) > 2 else np.nan
    return ShiftTest(observed, p, int(own.sum()), len(found), spread)


def _orders(blocks: int) -> Iterator[Int[np.ndarray, " block"]]:
    """All shifts of the blocks and of their reflection, but for the order as it is."""
    place = np.arange(blocks)
    for shift in range(1, blocks):
        yield np.roll(place, shift)
    for shift in range(blocks):
        yield np.roll(place[::-1], shift)


def _moved(
    y: np.ndarray,
    x: np.ndarray,
    fixed: Sequence[np.ndarray],
    there: np.ndarray,
    order: Int[np.ndarray, " block"],
) -> float:
    """Correlation after x's blocks are put in another order."""
    moved = x[order] if x.ndim == 1 else x[np.ix_(order, order)]
    own = there & np.isfinite(moved)
    if x.ndim == 2:
        place = np.arange(len(order))
        before, after = (np.abs(np.subtract.outer(each, each)) for each in (order, place))
        own &= before == after
    return _rho(y[own], moved[own], [each[own] for each in fixed])


def _rho(y: np.ndarray, x: np.ndarray, fixed: Sequence[np.ndarray]) -> float:
    """Spearman's (partial) correlation; NaN for too few entries, or where nothing varies."""
    if len(y) < LEAST_ENTRIES + len(fixed):
        return np.nan
    ranks = np.column_stack([rankdata(each) for each in (y, x, *fixed)])
    ranks -= ranks.mean(axis=0)
    values, held = ranks[:, :2], ranks[:, 2:]
    rest = values - held @ (np.linalg.pinv(held, rcond=1e-10) @ values)
    size, whole = np.linalg.norm(rest, axis=0), np.linalg.norm(values, axis=0)
    if (size <= 1e-10 * whole).any():
        return np.nan
    return float(rest[:, 0] @ rest[:, 1] / size.prod())
