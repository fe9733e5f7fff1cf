"""A linear layer whose weight exceeds the memory for weights, computed some outputs at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

if TYPE_CHECKING:
    from jaxtyping import Float

WEIGHTS = 2**24
"""How many weights to convert at once."""


def linear_in_slices(
    layer: nn.Linear,
    weight: Float[Tensor, "outputs inputs"],
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[Tensor], Tensor]:
    """A forward for a layer whose weight stays in its file's precision and place.

    Args:
        layer: the layer, for its bias.
        weight: its weight as it is stored.
        device: where products are computed.
        dtype: their precision.
    """

    def forward(x: Float[Tensor, "*any inputs"]) -> Float[Tensor, "*any outputs"]:
        outputs, inputs = weight.shape
        step = max(1, WEIGHTS // inputs)
        parts = [
            linear(x, weight[start : start + step].to(device, dtype))
            for start in range(0, outputs, step)
        ]
        y = torch.cat(parts, dim=-1)
        return y if layer.bias is None else y + layer.bias

    return forward
