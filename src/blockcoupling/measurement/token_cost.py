"""Estimated cost of comparing the tokens of a prompt."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a prompt takes: counts, bytes, and floating-point operations (estimated)."""

    jacobians: int
    comparisons: int
    disk: int
    store: int
    flops: float

    def __str__(self) -> str:
        """A sentence; the time is estimated from the speed of a product on this machine."""
        return (
            f"{self.jacobians:,} Jacobians, {self.comparisons:,} comparisons, about "
            f"{seconds_of(self.flops):,.0f} s, {self.disk / 1e9:.1f} GB of temporary disk, "
            f"{self.store / 1e6:,.0f} MB kept"
        )


def cost(parameters: int, dimension: int, tokens: int, pairs: int, blocks: int, k: int) -> Cost:
    """Estimate what one prompt takes.

    Args:
        parameters: of one block.
        dimension: d.
        tokens: n, how many tokens are compared.
        pairs: of blocks.
        blocks: how many blocks are in those pairs.
        k: singular triples.
    """
    jacobians = blocks * tokens * (tokens + 1) // 2
    # Fixed input and fixed output: as many squares, 1² + 2² + … + n² each.
    comparisons = pairs * (tokens**2 + tokens * (tokens + 1) * (2 * tokens + 1) // 3)
    flops = 2.5 * parameters * dimension * blocks * tokens  # back through t2, and keys and values
    flops += jacobians * dimension**2 * (20 * dimension if dimension <= 256 else 2000)
    flops += comparisons * 2 * dimension**2 * k
    disk = 4 * dimension**2 * jacobians
    return Cost(jacobians, comparisons, disk, 4 * comparisons * k * (k + 1), flops)


def seconds_of(flops: float) -> float:
    """Seconds that floating-point operations take, from the speed of a product on this machine."""
    import torch

    a = torch.ones(1024, 1024)
    a @ a
    start = time.perf_counter()
    a @ a
    return flops / (2 * 1024**3 / (time.perf_counter() - start))
