"""Whether a model is causal, or bidirectional: whether tokens act on those before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blockcoupling.transformer.agreement import agree
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.recording import record_full
from blockcoupling.transformer.running import Given

if TYPE_CHECKING:
    from jaxtyping import Int


def is_causal(model: nn.Module, blocks: Blocks, given: Given, calls: Sequence[BlockCall]) -> bool:
    """Whether no later token changes an earlier one's hidden state, beyond rounding.

    The last token is replaced by another one, and the states of those before it are compared.
    Patches of an image have no order, so an image model is never causal.

    Args:
        model: the model.
        blocks: its blocks.
        given: a short prompt's token ids, (1, token); a single token is doubled. Or pixel values.
        calls: of the blocks on it.
    """
    if given.is_floating_point():
        return False
    if given.shape[1] == 1:
        given = torch.cat([given, given], dim=1)
        calls = record_full(model, blocks, given)
    changed = given.clone()
    changed[0, -1] = _another(given[0])
    pairs = zip(calls, record_full(model, blocks, changed), strict=True)
    return all(agree(other.output[0, :-1], one.output[0, :-1]) for one, other in pairs)


def _another(ids: Int[Tensor, " token"]) -> Tensor:
    """A token that differs from the last one: another of the prompt's, if there is one."""
    others = ids[ids != ids[-1]]
    if len(others):
        return others[-1]
    return torch.where(ids[-1] > 0, ids[-1] - 1, ids[-1] + 1)
