"""Degenerate Jacobians: exactly 0 or −I, or not finite.

With a kernel that has no gradient (a repacked quantized layer, for example) only the skip
connection is differentiated: the residual Jacobian is exactly 0. A block may also truly do nothing
(one that was added as an identity, to be trained; a token beyond its window): then the function
itself is constant as well, and 0 is the right result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian.operator import Operator

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

LOST = "but the block itself changes: a kernel without a gradient may be the cause"
IGNORED = "the block's output does not depend on its input"


class AtPrompt(MeasurementError):
    """A fault of one prompt of a batch; `prompt` is its position in the batch."""

    def __init__(self, message: str, prompt: int) -> None:
        super().__init__(message)
        self.prompt = prompt


def zero_prompts(
    operator: Operator, block: int, function: Operator | None = None
) -> Bool[Tensor, " prompt"]:
    """For which prompts the residual Jacobian is truly 0, on the CPU; by one random product.

    Args:
        operator: the Jacobians.
        block: its index (0 …).
        function: the operator whose function can be evaluated, if it is another one.

    Raises:
        AtPrompt: a Jacobian is not finite, exactly −I, or exactly 0 though the block changes.
    """
    generator = torch.Generator().manual_seed(block)
    probe = torch.randn(operator.prompts, operator.dimension, 1, generator=generator)
    probe = probe.to(operator.device, operator.dtype)
    pulled = operator.adjoint(probe)
    zero = ~pulled.flatten(1).any(dim=1).cpu()
    # For all prompts, and only if one needs it.
    truly = (function or operator).unchanged() if zero.any() else zero
    for prompt in range(operator.prompts):
        p, q = probe[prompt], pulled[prompt]
        if not bool(torch.isfinite(q).all()):
            problem = "is not finite"
        elif zero[prompt] and not truly[prompt]:
            problem = f"is exactly 0 ({LOST})"
        elif torch.equal(q, -p):
            problem = f"is exactly −I ({IGNORED})"
        else:
            continue
        raise AtPrompt(f"block {block + 1}: the residual Jacobian {problem}", prompt)
    return zero
