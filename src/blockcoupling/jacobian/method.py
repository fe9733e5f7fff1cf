"""Dense or matrix-free: which of them finds a block's singular triples sooner."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from blockcoupling.jacobian.operator import Operator
from blockcoupling.jacobian.svd import default_block

# Below this width a whole Jacobian costs less than the first steps of an iteration.
SMALL_DIMENSION = 256
# Random probes of the second sweep (see `decompose`).
NORM_PROBES = 16


@dataclass
class MethodChooser:
    """Picks dense or matrix-free for a block by what either has been measured to cost.

    A dense Jacobian takes d products in large batches, or fewer (`Operator.dense_products`); the
    iteration takes still fewer, in small batches, plus K for every block of the second sweep. How
    many fewer is known from the blocks and prompts before; for the first one, 27 K is assumed (what
    trained models of width 576 to 2048 took).

    Attributes:
        triples: products the iteration took per wanted triple, as last seen.
        slowdown: time of a product in a small batch over one in a large batch, as measured.
    """

    triples: float = 27.0
    slowdown: float | None = None

    def choose(self, operator: Operator, blocks: int, k: int) -> str:
        """Return "dense" or "krylov" for one block."""
        if operator.dimension <= SMALL_DIMENSION:
            return "dense"
        dense = operator.dense_products
        iterated, at_once = self.triples * k, blocks * k + NORM_PROBES
        if iterated + at_once >= dense:
            return "dense"
        if self.slowdown is None:
            self.slowdown = self._measure(operator)
        return "krylov" if iterated * self.slowdown + at_once < dense else "dense"

    def learn(self, triples: float, method: str) -> None:
        """Take in how many products per wanted triple a block took, where it was iterated."""
        if method == "krylov" and triples:  # none at all, where a Jacobian is 0
            self.triples = max(0.5 * self.triples, triples)

    @staticmethod
    def _measure(operator: Operator) -> float:
        def seconds(columns: int) -> float:
            u = torch.ones(
                operator.prompts,
                operator.dimension,
                columns,
                dtype=operator.dtype,
                device=operator.device,
            )
            best = float("inf")
            for _ in range(2):
                start = time.perf_counter()
                operator.adjoint(u)
                if operator.device.type != "cpu":
                    torch.accelerator.synchronize(operator.device)
                best = min(best, time.perf_counter() - start)
            return best / columns

        return max(1.0, seconds(default_block(operator)) / seconds(128))
