"""Whether a token that was decoded is the token of the whole prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from blockcoupling.errors import MeasurementError
from blockcoupling.transformer.calls import BlockCall

if TYPE_CHECKING:
    from jaxtyping import Float


def same_trajectory(
    prompt: str,
    token: int,
    calls: Sequence[BlockCall],
    states: Float[np.ndarray, "token state embed"],
) -> None:
    """Check that decoding a token gave the hidden states of the whole prompt's pass.

    Rounding grows through the blocks: 1e4 eps of the state's norm (1e-3) allows for it, and a token
    seen at another position or past another context is off by far more. That of float32 in float64
    too, since most models take their softmax in float32 all the same.
    """
    decoded = calls[-1].output[0, -1].double().cpu().numpy()
    whole = states[token, -1]
    eps = torch.finfo(torch.float32).eps
    error = float(np.linalg.norm(decoded - whole) / np.linalg.norm(whole))
    if not error <= 1e4 * eps:
        raise MeasurementError(
            f"prompt {prompt!r}: decoding token {token} with a cache gives another "
            f"hidden state than the whole prompt does (relative difference {error:.1e}). Measure "
            "this model with context='full'."
        )
