"""One measurement of this package, timed in its two parts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.machine import synchronize
from blockcoupling.jacobian.block_operators import SameToken
from blockcoupling.jacobian.decompose import Decomposition, decompose
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.recording import record_decode
from blockcoupling.transformer.running import differentiable


@dataclass(frozen=True)
class Timed:
    """Seconds of the forward passes and of everything after them, and what was found."""

    forward: float
    rest: float
    found: Decomposition

    @property
    def seconds(self) -> float:
        """The whole measurement."""
        return self.forward + self.rest


def measure(
    model: nn.Module,
    ids: list[Tensor],
    k: int,
    method: str,
    full: bool = False,
    overlaps: bool = False,
) -> Timed:
    """Measure prompts in one batch: S, U, V and A of all blocks, last token."""
    device = ids[0].device
    with differentiable(model):
        blocks = find_blocks(model, ids[0][:, :4])
        synchronize(device)
        start = time.perf_counter()
        calls = [record_decode(model, blocks, one) for one in ids]
        synchronize(device)
        forward = time.perf_counter() - start
        start = time.perf_counter()
        found = decompose(
            SameToken(lambda block: [c[block] for c in calls]),
            len(blocks),
            k,
            method=method,  # type: ignore[arg-type]
            full=full,
            overlaps=overlaps,
        )
        synchronize(device)
    return Timed(forward, time.perf_counter() - start, found)


def miscoupling(found: Decomposition, k: int) -> Tensor:
    """m_k(i, j), `frobenius`, float64: (prompt, block, block_other)."""
    s = found.S[:, :, None, :k].double()
    a = found.A[..., :k, :k].double()
    return (a - torch.diag_embed(s)).flatten(-2).norm(dim=-1) / s.norm(dim=-1)
