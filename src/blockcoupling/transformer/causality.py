"""Whether a model is causal, or bidirectional: whether tokens act on those before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.recording import record_full
from blockcoupling.transformer.running import Given

if TYPE_CHECKING:
    from jaxtyping import Int


def is_causal(model: nn.Module, blocks: Blocks, given: Given) -> bool:
    """Whether no later token changes an earlier one's hidden state, beyond rounding.

    The last token is replaced by another one, and the states of those before it are compared.
    Patches of an image have no order, so an image model is never causal.

    Args:
        model: the model.
        blocks: its blocks.
        given: a short prompt's token ids, (1, token); a single token is doubled. Or pixel values.
    """
    if given.is_floating_point():
        return False
    if given.shape[1] == 1:
        given = torch.cat([given, given], dim=1)
    changed = given.clone()
    changed[0, -1] = _another(given[0])
    # Sums over tokens are split alike; experts are given other batches: 1e3 roundings of float32.
    limit = 1e3 * torch.finfo(torch.float32).eps
    pairs = zip(record_full(model, blocks, given), record_full(model, blocks, changed), strict=True)
    for one, other in pairs:
        before, after = (call.output[0, :-1].nan_to_num() for call in (one, other))
        moved = (before - after).norm(dim=-1)
        if bool((moved > limit * before.norm(dim=-1)).any()):
            return False
    return True


def _another(ids: Int[Tensor, " token"]) -> Tensor:
    """A token that differs from the last one: of the prompt's own, where it has another."""
    others = ids[ids != ids[-1]]
    if len(others):
        return others[-1]
    return torch.where(ids[-1] > 0, ids[-1] - 1, ids[-1] + 1)
