"""Stochastic depth: residual branches are dropped at random in training (arXiv 1603.09382)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blockcoupling.lab.training.parallel import ALONE, Part

if TYPE_CHECKING:
    from jaxtyping import Float


class DropBranch(nn.Module):
    """Drops a branch for some samples and scales it for the others, so that its mean is unchanged.

    Without parameters, and the identity in evaluation. As torch's own dropout, it draws from
    torch's generator.

    Args:
        rate: how often, below 1.
        part: that the samples are of a batch; drawn is for all of it.
    """

    def __init__(self, rate: float, part: Part = ALONE) -> None:
        super().__init__()
        self.rate, self.part = rate, part

    def forward(self, branch: Float[Tensor, "sample token embed"]) -> Tensor:
        """The branch of each sample, or zeros."""
        if not self.training:
            return branch
        whole = len(branch) * self.part.count
        kept = self.part.of(torch.rand(whole, 1, 1)) >= self.rate
        return branch * kept.to(branch) / (1 - self.rate)


def drop_neox_branches(layers: nn.ModuleList, rate: float) -> None:
    """Add stochastic depth to GPT-NeoX layers, for attention and MLP separately.

    Args:
        layers: the blocks; block l of L leaves a branch out with probability rate · l / L.
        rate: of the last block.
    """
    rates = [rate * number / len(layers) for number in range(1, len(layers) + 1)]
    _drop_after(layers, ("post_attention_dropout", "post_mlp_dropout"), rates, ALONE)


def drop_vit_branches(layers: nn.ModuleList, rate: float, part: Part = ALONE) -> None:
    """Add stochastic depth to the layers of transformers' ViT, for attention and MLP separately.

    Args:
        layers: the blocks; block l of L leaves a branch out with probability
            rate · (l − 1) / (L − 1), as DeiT's do: never the first, most often the last.
        rate: of the last block.
        part: that this process has of each batch.
    """
    rates = [rate * number / max(1, len(layers) - 1) for number in range(len(layers))]
    # One module ends both branches, called once for each.
    _drop_after(layers, ("dropout",), rates, part)


def _drop_after(
    layers: nn.ModuleList, names: Sequence[str], rates: Sequence[float], part: Part
) -> None:
    """Drop branches at their dropout, before they are added to the residual stream."""
    for layer, rate in zip(layers, rates, strict=True):
        for name in names:
            setattr(layer, name, nn.Sequential(getattr(layer, name), DropBranch(rate, part)))
