"""What is kept of a prompt's hidden states: inner products of the steps, and a picture in 2-D."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


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
