"""What is kept of a prompt's hidden states: inner products, projections to 2-D, CKA, RankMe."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import entr

# ‖X − mean‖² / ‖X‖² of tokens that differ by rounding only: float64 squared, with a margin.
_ALL_THE_SAME = 1e-28


def gram(
    states: Float[np.ndarray, "token state embed"],
) -> Float[np.ndarray, "token state state"]:
    """Inner products of (x^0, δ^1 … δ^L) of every token, δ^l = x^l − x^{l−1}."""
    steps = np.concatenate([states[:, :1], np.diff(states, axis=1)], axis=1)
    return steps @ steps.swapaxes(1, 2)


def principal_components(
    states: Float[np.ndarray, "token state embed"],
) -> tuple[Float[np.ndarray, "token state component"], Float[np.ndarray, " component"]]:
    """Trajectories on the two principal components of the tokens' last states.

    Returns:
        The projections, centred as the last states are, and the explained-variance ratios. With
        fewer tokens than components allow, the missing components are zero.
    """
    centre = states[:, -1].mean(axis=0)
    _, s, vh = np.linalg.svd(states[:, -1] - centre, full_matrices=False)
    axes = np.zeros((2, states.shape[-1]))
    ratios = np.zeros(2)
    total = float((s**2).sum())
    for i in range(min(2, len(states) - 1)):
        if total > 0:
            # The sign of a component is free: its entry of largest magnitude is made positive.
            axes[i] = vh[i] * np.sign(vh[i][np.abs(vh[i]).argmax()])
            ratios[i] = s[i] ** 2 / total
    return ((states - centre) @ axes.T).astype(np.float32), ratios.astype(np.float32)


def neighbours_cka(
    states: Float[np.ndarray, "token state embed"],
) -> Float[np.ndarray, " block"]:
    """Debiased linear CKA of every block's input and output, over the tokens.

    HSIC(X, Y) / √(HSIC(X, X) HSIC(Y, Y)) of the token matrices X = x^(l−1) and Y = x^l (Kornblith
    et al. 2019, arXiv 1905.00414), with the unbiased estimator of HSIC (Song et al. 2012, JMLR 13,
    eq. 5). The biased one approaches 1 for unrelated states where tokens are few. For centred
    X and Y, with squared lengths k and l of their n rows, that estimator is proportional to
    ‖Yᵀ X‖_F² − n / (n − 2) k·l + Σk Σl / ((n − 1)(n − 2)).

    Returns:
        float64, dimensionless, at most 1, about 0 for unrelated states. NaN for fewer than four
        tokens, and where all tokens have the same state.
    """
    tokens, _, embed = states.shape
    centred = states - states.mean(axis=0)
    spread, size = (np.square(x).sum(axis=(0, 2)) for x in (centred, states))
    few = tokens <= embed  # ‖Yᵀ X‖² = ⟨X Xᵀ, Y Yᵀ⟩: the smaller matrices are made
    if tokens < 4:
        return np.full(states.shape[1] - 1, np.nan)
    lengths = np.square(centred).sum(axis=2).T

    def hsic(shared: np.floating, one: np.ndarray, other: np.ndarray) -> np.floating:
        means = one.sum() * other.sum() / ((tokens - 1) * (tokens - 2))
        return shared - tokens / (tokens - 2) * (one @ other) + means

    before: tuple[np.ndarray, np.ndarray, np.ndarray, np.floating] | None = None
    found = []
    for x, length in zip(centred.swapaxes(0, 1), lengths, strict=True):
        products = x @ x.T if few else x.T @ x
        own = hsic(np.square(products).sum(), length, length)
        if before is not None:
            earlier, its_products, its_length, its_own = before
            shared = np.vdot(products, its_products) if few else np.square(earlier.T @ x).sum()
            with np.errstate(invalid="ignore", divide="ignore"):
                found.append(hsic(shared, length, its_length) / np.sqrt(own * its_own))
        before = x, products, length, own
    same = spread <= _ALL_THE_SAME * size
    return np.where(same[:-1] | same[1:], np.nan, np.minimum(found, 1))


def rankme(last: Float[np.ndarray, "token embed"]) -> float:
    """Effective rank exp(−Σ p ln p), p = σ / Σσ, of the singular values σ of a token matrix.

    RankMe (Garrido et al. 2023, arXiv 2210.02885) without its guard of 1e-7 against ln 0. It lies
    between 1 and the smaller of the number of tokens and the width; NaN where all states are 0.
    """
    values = np.linalg.svd(last, compute_uv=False)
    total = values.sum()
    return float(np.exp(entr(values / total).sum())) if total > 0 else float("nan")
