"""Predictions of the next token at every token of some texts, and how two of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Predictions:
    """What a model predicts at every token of some texts, and its loss on them.

    Attributes:
        log_p: logarithms of probabilities, (text, token, word).
        loss: mean over a text's tokens from the second on, (text), in nats a token.
    """

    def __init__(
        self,
        logits: Float[Tensor, "text token word"],
        ids: Int[Tensor, "text token"],
        real: Bool[Tensor, "text token"],
    ) -> None:
        self._ids, self._real = ids, real
        self.log_p = torch.log_softmax(_plain(logits), -1)
        self.loss = self._loss(self.log_p)

    def against(self, logits: Float[Tensor, "text token word"]) -> tuple[np.ndarray, np.ndarray]:
        """KL(these ‖ those), mean over a text's tokens, and the loss of those; nats a token."""
        log_q = torch.log_softmax(_plain(logits), -1)
        loss = self._loss(log_q)
        each = (self.log_p.exp() * log_q.neg_().add_(self.log_p)).sum(-1)
        kl = (each * self._real).sum(1).double() / self._real.sum(1)
        return kl.cpu().numpy(), loss.cpu().numpy()

    def _loss(self, log_p: Tensor) -> Tensor:
        own = log_p[:, :-1].gather(-1, self._ids[:, 1:, None])[..., 0]
        counted = self._real[:, 1:]
        return -(own * counted).sum(1).double() / counted.sum(1)


def _plain(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def padded(texts: Sequence[Int[Tensor, " token"]]) -> tuple[Tensor, Tensor]:
    """Texts as rows, each padded with its last token, and which tokens are not padding."""
    longest = max(len(ids) for ids in texts)
    filled = [torch.cat([ids, ids[-1:].expand(longest - len(ids))]) for ids in texts]
    lengths = torch.tensor([len(ids) for ids in texts])
    return torch.stack(filled), torch.arange(longest) < lengths[:, None]
