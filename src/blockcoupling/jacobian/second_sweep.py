"""The second sweep: every block's Jacobian J_i on the singular vectors of all blocks j."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.jacobian.first_sweep import Found
from blockcoupling.jacobian.hutchpp import hutchpp
from blockcoupling.jacobian.operator import DenseOperator, Operator
from blockcoupling.jacobian.spill import Spill
from blockcoupling.jacobian.svd import relative_residual

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Applied:
    """The results of the second sweep for one block i: J_i on the vectors of every block j."""

    A: Float[Tensor, "prompt block_other k k_other"]
    A_swapped: Float[Tensor, "prompt block_other k k_other"] | None
    residual: Float[Tensor, " prompt"]
    norm: Float[Tensor, " prompt"] | None
    norm_error: Float[Tensor, " prompt"] | None
    products: int


@dataclass(frozen=True)
class SecondSweep:
    """Applies each block's Jacobian to the vectors of all blocks.

    Attributes:
        operators: block index (0 …) → operator for all prompts.
        found: results of the first sweep, by block.
        U, S, V: the triples of all blocks.
        swapped: also keep V_jᵀ J_i U_j.
        seed: of the norm's random probes.
        spill: holds whole Jacobians of the first sweep.
    """

    operators: Callable[[int], Operator]
    found: Sequence[Found]
    U: Float[Tensor, "prompt block embed k"]
    S: Float[Tensor, "prompt block k"]
    V: Float[Tensor, "prompt block embed k"]
    swapped: bool
    seed: int
    spill: Spill

    def of(self, block: int) -> Applied:
        """The products of block i = `block` (0 …) with every j, its residual and norm."""
        dense = block in self.spill
        operator = DenseOperator(self.spill.get(block)) if dense else self.operators(block)
        right, left, s = (x.to(operator.device) for x in (self.V, self.U, self.S))
        A, residual = _couple(operator, block, right, left, s)
        swapped = _couple(operator, block, left, right, s)[0] if self.swapped else None
        if dense:
            return Applied(A, swapped, residual, None, None, 0)
        norm, error = hutchpp(operator, self.found[block].triples, self.seed)
        return Applied(A, swapped, residual, norm, error, operator.products)


def _couple(
    operator: Operator,
    block: int,
    right: Float[Tensor, "prompt block embed k"],
    left: Float[Tensor, "prompt block embed k"],
    s: Float[Tensor, "prompt block k"],
) -> tuple[Float[Tensor, "prompt block_other k k_other"], Float[Tensor, " prompt"]]:
    """left_jᵀ J right_j for all j, and the residual at j = block; on the CPU."""
    prompts, blocks, d, k = right.shape
    together = max(1, d // (4 * k))
    out = torch.empty(prompts, blocks, k, k, dtype=right.dtype)
    residual = torch.zeros(prompts, dtype=right.dtype)
    for start in range(0, blocks, together):
        chosen = slice(start, min(start + together, blocks))
        columns = right[:, chosen].permute(0, 2, 1, 3).reshape(prompts, d, -1)
        pushed = operator.matmat(columns).reshape(prompts, d, -1, k).permute(0, 2, 1, 3)
        out[:, chosen] = (left[:, chosen].mT @ pushed).to(out)
        if start <= block < start + together:
            own = relative_residual(pushed[:, block - start], left[:, block], s[:, block])
            residual = own.cpu()
    return out, residual
