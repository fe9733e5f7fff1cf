"""Whether a function changes about a point, asked of the function itself: no gradient is involved.

An automatic derivative of exactly 0 may be true (a block whose last layers are zero, a token beyond
a window), or it may be the sign of a kernel without one. Differences of the function tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.transformer.agreement import ROUNDING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

# Relative to the point's norm. A function of rounded arguments (an integer kernel) is constant
# over small steps, and one that saturates may change at large ones only.
STEPS = (1e-3, 1e-2, 1e-1)


def unchanged(
    function: Callable[[Float[Tensor, "prompt embed"]], Float[Tensor, "prompt embed"]],
    point: Float[Tensor, "prompt embed"],
    residual: bool,
) -> Bool[Tensor, " prompt"]:
    """For which prompts f does not change about the point, in random directions, at any step.

    f is the function, or the function minus the identity. With the steps taken, a change is seen
    from ‖f(x + δ) − f(x)‖ of some 1e-4 ‖δ‖ on.

    Args:
        function: (prompt, d) → (prompt, d), prompts independent of each other.
        point: (prompt, d).
        residual: whether the identity is subtracted.
    """
    generator = torch.Generator().manual_seed(0)
    result = torch.ones(len(point), dtype=torch.bool)
    with torch.no_grad():
        before = function(point)
        for step in STEPS:
            noise = torch.randn(2, *point.shape, generator=generator, dtype=torch.float64)
            noise = noise.to(point)
            # All entries alike, and each by its own size: some are a thousand times the others.
            for direction in (noise[0], noise[1] * point):
                length = direction.norm(dim=1, keepdim=True).clamp_min(1e-30)
                there = point + step * point.norm(dim=1, keepdim=True) * direction / length
                after = function(there)
                change = after.double() - before.double()
                size = after.double().norm(dim=1) + before.double().norm(dim=1)
                if residual:
                    change = change - (there.double() - point.double())
                    size = size + there.double().norm(dim=1) + point.double().norm(dim=1)
                result &= (change.norm(dim=1) <= ROUNDING * size).cpu()
    return result
