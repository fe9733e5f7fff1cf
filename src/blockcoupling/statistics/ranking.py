"""Whether a predictor ranks models as a score does when hyperparameters change one at a time.

The protocol for measures of generalization, on the grid of a population's factors: the granulated
Kendall coefficient and conditional mutual information of Jiang et al. (2020, arXiv 1912.02178), and
the robust sign error of Dziugaite et al. (2020, arXiv 2010.11924).
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from blockcoupling.statistics.factors import PREFIX

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from numpy.typing import ArrayLike, NDArray

_SEED = f"{PREFIX}seed"


class Ranking(NamedTuple):
    """Agreement of two rankings over a grid of factors.

    Attributes:
        kendall_granulated: Kendall's τ of settings that differ in one factor, averaged over the
            values of the others, and then over factors.
        conditional_information: mutual information of the signs of both differences, given the
            values of at most two factors, as a share of the entropy of the score's sign; the least
            over all choices of factors. 0 if some factors explain the whole relation, 1 at best.
        robust_sign_error: share of settings that differ in one factor, between two given values,
            whose difference has another sign than overall; the largest over factors and values.
    """

    kendall_granulated: float = np.nan
    conditional_information: float = np.nan
    robust_sign_error: float = np.nan


def factor_codes(points: pd.DataFrame) -> Int[np.ndarray, "point factor"]:
    """Return codes of the factors that vary on a grid: those whose values are shared by points.

    Args:
        points: one row per model, with columns `factor.KEY`. The seed is not a factor.
    """
    codes = [
        pd.factorize(points[name])[0]
        for name in points
        if str(name).startswith(PREFIX)
        and name != _SEED
        and points[name].notna().all()
        and 2 <= points[name].astype(str).nunique() <= len(points) / 2
    ]
    return np.array(codes, dtype=int).reshape(-1, len(points)).T


def rank(x: ArrayLike, y: ArrayLike, codes: Int[np.ndarray, "point factor"]) -> Ranking:
    """Compare the ranking of settings by a predictor with that by a score.

    Args:
        x: predictor, (n,).
        y: score, (n,).
        codes: as `factor_codes` returns them; points with equal codes (seeds) are averaged.

    Returns:
        NaN where no two settings differ in a single factor, or nothing varies.
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    known = np.isfinite(a) & np.isfinite(b)
    if codes.shape[1] == 0 or known.sum() < 2:
        return Ranking()
    settings, setting = np.unique(codes[known], axis=0, return_inverse=True)
    a, b = (np.bincount(setting, v[known]) / np.bincount(setting) for v in (a, b))
    one, other = np.triu_indices(len(settings), 1)
    sign_a, sign_b = np.sign(a[one] - a[other]), np.sign(b[one] - b[other])
    agree = sign_a * sign_b
    if not agree.any():
        return Ranking()
    granulated, errors = [], []
    for factor in range(settings.shape[1]):
        same = np.delete(settings[one] == settings[other], factor, axis=1).all(axis=1)
        if not same.any():
            continue
        others = np.delete(settings[one[same]], factor, axis=1)
        granulated.append(_means(agree[same], others).mean())
        ends = np.sort(np.stack([settings[one[same], factor], settings[other[same], factor]]).T)
        errors.append(_means((1 - np.sign(agree.sum()) * agree[same]) / 2, ends).max())
    information = [
        _information(sign_a, sign_b, settings[one][:, [*given]], settings[other][:, [*given]])
        for size in range(3)
        for given in combinations(range(settings.shape[1]), size)
    ]
    return Ranking(
        float(np.mean(granulated)) if granulated else np.nan,
        float(np.nanmin(information)) if np.isfinite(information).any() else np.nan,
        float(np.max(errors)) if errors else np.nan,
    )


def _means(values: Float[np.ndarray, " pair"], groups: NDArray[np.int_]) -> NDArray[np.float64]:
    """Mean of the values of each distinct row of `groups`."""
    _, group = np.unique(groups, axis=0, return_inverse=True)
    return np.asarray(np.bincount(group, values) / np.bincount(group))


def _information(
    sign_a: Float[np.ndarray, " pair"],
    sign_b: Float[np.ndarray, " pair"],
    one: Int[np.ndarray, "pair given"],
    other: Int[np.ndarray, "pair given"],
) -> float:
    """I(sign a; sign b | factors) / H(sign b | factors), over ordered pairs of settings."""
    given = np.vstack([np.hstack([one, other]), np.hstack([other, one])])
    _, cell = np.unique(given, axis=0, return_inverse=True)
    a, b = (np.concatenate([sign, -sign]).astype(int) + 1 for sign in (sign_a, sign_b))
    counts = np.bincount(9 * cell + 3 * a + b, minlength=9 * (cell.max() + 1)).reshape(-1, 3, 3)
    p = counts / counts.sum()
    of_cell, of_a, of_b = p.sum((1, 2), keepdims=True), p.sum(2, keepdims=True), p.sum(1)[:, None]
    entropy = -_sum_of_logs(of_b, of_b / of_cell)
    if entropy <= 1e-12:
        return np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return _sum_of_logs(p, p * of_cell / (of_a * of_b)) / entropy


def _sum_of_logs(weights: NDArray[np.float64], ratios: NDArray[np.float64]) -> float:
    """Σ w ln r, where terms without weight are 0."""
    used = weights > 0
    return float((weights[used] * np.log(ratios[used])).sum())
