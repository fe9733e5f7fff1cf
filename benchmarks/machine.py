"""What this machine can do: the matrix-product rate and the memory bandwidth, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def synchronize(device: torch.device) -> None:
    """Wait for an accelerator; nothing to wait for on a CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median wall-clock seconds of `work` after one warm-up."""
    work()
    taken = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]


@dataclass(frozen=True)
class Floor:
    """The least time that d products with a block can take here.

    Attributes:
        flops: multiply-adds counted twice, per second, in the block's own products with d rows.
        bandwidth: bytes read per second, streaming through an array larger than the caches.
        parameters: entries of the block's matrices.
    """

    flops: float
    bandwidth: float
    parameters: int

    def products(self, count: float) -> float:
        """Seconds that `count` matrix-vector products with the block take at the measured rate."""
        return 2 * self.parameters * count / self.flops

    def reading(self, itemsize: int = 4) -> float:
        """Seconds to read the block's weights once."""
        return self.parameters * itemsize / self.bandwidth


def measure_floor(block: nn.Module, dimension: int, device: torch.device) -> Floor:
    """Time the block's own matrices against d vectors, and a pass over a large array."""
    matrices: list[Tensor] = [p.detach() for p in block.parameters() if p.ndim == 2]
    rows = {
        m.shape[0]: torch.randn(dimension, m.shape[0], device=device, dtype=m.dtype)
        for m in matrices
    }
    taken = seconds(lambda: [rows[m.shape[0]] @ m for m in matrices], device)
    parameters = sum(m.numel() for m in matrices)
    large = torch.ones(64 * 2**20, device=device)
    reading = seconds(large.sum, device)
    return Floor(2 * dimension * parameters / taken, large.numel() * 4 / reading, parameters)
