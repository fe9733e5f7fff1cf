"""How the singular vectors of all blocks overlap: one matrix product for each kind of overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.config.overlaps import OVERLAPS

if TYPE_CHECKING:
    from jaxtyping import Float


def overlaps(
    U: Float[Tensor, "prompt block embed k"], V: Float[Tensor, "prompt block embed k"]
) -> dict[str, Float[Tensor, "prompt block block_other k k_other"]]:
    """left_iᵀ right_j of every two blocks i and j, by the names of `OVERLAPS`; on the CPU.

    Prompts are processed one by one, so that a device holds one product at a time and a prompt's
    bits do not depend on its batch.

    Args:
        U: left singular vectors.
        V: right ones.
    """
    vectors = {"U": U, "V": V}
    return {
        name: between(vectors[each.left], vectors[each.right]) for name, each in OVERLAPS.items()
    }


def between(
    left: Float[Tensor, "prompt block embed k"], right: Float[Tensor, "prompt block embed k"]
) -> Float[Tensor, "prompt block block_other k k_other"]:
    """left_iᵀ right_j of every two blocks i and j, prompt by prompt; on the CPU."""
    prompts, blocks, _, k = left.shape
    found = torch.empty(prompts, blocks, blocks, k, k, dtype=left.dtype, device="cpu")
    for prompt in range(prompts):
        # The vectors of all blocks as columns: (embed, block · k).
        one, other = (each[prompt].transpose(0, 1).flatten(1) for each in (left, right))
        found[prompt] = (one.mT @ other).reshape(blocks, k, blocks, k).transpose(1, 2)
    return found
