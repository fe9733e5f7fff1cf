"""Whether a function is constant around a point, by evaluating it, without gradients.

An automatic derivative of exactly 0 may be true (a block whose last layers are zero, a token beyond
a window), or come from a kernel without a gradient. Differences of the function distinguish them.
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
# over small steps, and a saturated one changes over large ones only.
STEPS = (1e-3, 1e-2, 1e-1)


def unchanged(
    function: Callable[[Float[Tensor, "prompt embed"]], Float[Tensor, "prompt embed"]],
    point: Float[Tensor, "prompt embed"],
    residual: bool,
) -> Bool[Tensor, " prompt"]:
    """For which prompts f is constant around the point, in random directions, at any step.

    f is the function, or the function minus the identity. With these steps, changes of
    ‖f(x + δ) − f(x)‖ above about 1e-4 ‖δ‖ are seen.

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
            # Equal steps for all entries, and steps relative to each: some are 1000 times larger.
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
