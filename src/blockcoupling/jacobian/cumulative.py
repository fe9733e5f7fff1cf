"""The cumulative Jacobian: the product of all I + J up to each block, and its singular triples.

I + J_l is what a block does to a small change of one token's state, skip connection included, so
the product Π (I + J_l), l = 1 … i, is what all blocks up to i do to it while it stays at its token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from blockcoupling.config.overlaps import CUMULATIVE
from blockcoupling.jacobian.dense_svd import dense_triples
from blockcoupling.jacobian.overlaps import between

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Cumulative:
    """The top triples after every block, on the CPU.

    Attributes:
        S: (prompt, block, k) singular values.
        overlaps: (prompt, block, block_other, k, k_other), by the names of `CUMULATIVE`.
    """

    S: Float[Tensor, "prompt block k"]
    overlaps: dict[str, Float[Tensor, "prompt block block_other k k_other"]]


def cumulative(
    jacobian: Callable[[int], Float[Tensor, "prompt embed embed"]],
    U: Float[Tensor, "prompt block embed k"],
    V: Float[Tensor, "prompt block embed k"],
    tolerance: float,
    seed: int,
) -> Cumulative:
    """The cumulative Jacobian's triples after every block, and their overlaps with the blocks'.

    Args:
        jacobian: block (0 …) → the residual Jacobians of all prompts.
        U: left singular vectors of all blocks.
        V: right ones.
        tolerance: of the triples, as for a block's.
        seed: of the random start vectors.
    """
    k, triples = U.shape[-1], []
    product: Tensor | None = None
    for block in range(U.shape[1]):
        step = jacobian(block).to(U.device)
        if product is None:
            product = step.clone()
            product.diagonal(dim1=-2, dim2=-1).add_(1)
        else:
            product = product + step @ product
        triples.append(dense_triples(product, k, tolerance, False, seed)[0])
    left, right = (torch.stack([getattr(t, n) for t in triples], 1) for n in ("U", "V"))
    vectors = {"U": (left, U), "V": (right, V)}
    return Cumulative(
        S=torch.stack([t.S for t in triples], 1).cpu(),
        overlaps={name: between(*vectors[each.left]) for name, each in CUMULATIVE.items()},
    )
