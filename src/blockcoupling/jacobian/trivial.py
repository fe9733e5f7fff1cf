"""Jacobians that say nothing: exactly 0 or −I, or not finite."""

from __future__ import annotations

import torch

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian.operator import Operator


class AtPrompt(MeasurementError):
    """A fault of one prompt of a batch; `prompt` is its place in the batch."""

    def __init__(self, message: str, prompt: int) -> None:
        super().__init__(message)
        self.prompt = prompt


def refuse_trivial(operator: Operator, block: int) -> None:
    """Refuse a Jacobian that is exactly 0 or −I, or not finite, seen on one random vector.

    A kernel without a gradient (a repacked quantized layer, say) lets only the skip connection
    through: the block's Jacobian is then exactly the identity, and the residual one exactly 0.
    """
    generator = torch.Generator().manual_seed(block)
    probe = torch.randn(operator.prompts, operator.dimension, 1, generator=generator)
    probe = probe.to(operator.device, operator.dtype)
    pulled = operator.adjoint(probe)
    for prompt in range(operator.prompts):
        p, q = probe[prompt], pulled[prompt]
        if not bool(torch.isfinite(q).all()):
            problem = "is not finite"
        elif not bool(q.any()):
            problem = "is exactly 0 (does a kernel without a gradient stand in the way?)"
        elif torch.equal(q, -p):
            problem = "is exactly −I (the block's output does not depend on its input)"
        else:
            continue
        raise AtPrompt(f"block {block + 1}: the residual Jacobian {problem}", prompt)
