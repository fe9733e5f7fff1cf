"""An attention function that a user registers: softmax attention in which head 0 gives zeros."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

NAME = "of_a_user"


@contextmanager
def registered() -> Iterator[None]:
    """A context in which `set_attn_implementation(NAME)` selects it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(AttentionInterface._global_mapping, NAME, without_head_0)
        patch.setitem(AttentionMaskInterface._global_mapping, NAME, eager_mask)
        yield


def without_head_0(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: (row, head, token, d) → (row, token, head, d)."""
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = scale * query @ key.mT
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    output = scores.softmax(-1) @ value
    kept = torch.ones(output.shape[1], 1, 1, dtype=output.dtype)
    kept[0] = 0
    return (output * kept).transpose(1, 2), None
