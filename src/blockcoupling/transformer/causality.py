"""Whether a model looks back only: no later token changes an earlier one's hidden state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.recording import record_full

if TYPE_CHECKING:
    from jaxtyping import Int


def refuse_looking_ahead(
    model: nn.Module, blocks: Blocks, input_ids: Int[Tensor, "1 token"]
) -> None:
    """Refuse a model in which a later token changes an earlier one's hidden state.

    It is tried: the last token is replaced by another, and the states of those before it compared.

    Args:
        model: the model.
        blocks: its blocks.
        input_ids: a short prompt, (1, token); of one token, it is taken twice.

    Raises:
        UserError: if any state of an earlier token moves, beyond rounding.
    """
    if input_ids.shape[1] == 1:
        input_ids = torch.cat([input_ids, input_ids], dim=1)
    changed = input_ids.clone()
    changed[0, -1] = _another(input_ids[0])
    # Sums over tokens are split alike; experts are given other batches: 1e3 roundings of float32.
    limit = 1e3 * torch.finfo(torch.float32).eps
    pairs = zip(
        record_full(model, blocks, input_ids), record_full(model, blocks, changed), strict=True
    )
    for block, (one, other) in enumerate(pairs, start=1):
        before, after = (call.output[0, :-1].nan_to_num() for call in (one, other))
        moved = (before - after).norm(dim=-1)
        if bool((moved > limit * before.norm(dim=-1)).any()):
            raise UserError(
                f"{type(model).__name__} looks both ways: in block {block} a later token changes "
                "an earlier one's hidden state, as in encoders. Only models that look back, causal "
                "ones, are measured; choose a causal model (or, where its configuration has "
                "is_decoder or use_bidirectional_attention, set it so that it looks back only)."
            )


def _another(ids: Int[Tensor, " token"]) -> Tensor:
    """A token that differs from the last one: of the prompt's own, where it has another."""
    others = ids[ids != ids[-1]]
    if len(others):
        return others[-1]
    return torch.where(ids[-1] > 0, ids[-1] - 1, ids[-1] + 1)
