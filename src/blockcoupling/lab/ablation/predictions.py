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
        starts: Sequence[int] | None = None,
    ) -> None:
        """Compute log-probabilities and losses.

        Args:
            logits: of the model as it is.
            ids: the tokens.
            real: which of them are not padding.
            starts: of a text that is a question with one of its choices, where the choice starts;
                its loss is the sum over the choice's tokens. 0: a text without a choice.
        """
        self._ids, self._real = ids, real
        start = torch.tensor(starts or [0] * len(ids), device=ids.device)[:, None]
        self._counted = (real & (torch.arange(ids.shape[1], device=ids.device) >= start))[:, 1:]
        self._over = torch.where(start[:, 0] > 0, 1, self._counted.sum(1))
        self.log_p = torch.log_softmax(_plain(logits), -1)
        self.loss = self._loss(self.log_p)

    def against(
        self, logits: Float[Tensor, "text token word"], at_end: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """KL(these ‖ those), mean over a text's tokens, and the loss of those; nats a token.

        Args:
            logits: of the changed model.
            at_end: whether KL is taken at a text's last token alone.
        """
        log_q = torch.log_softmax(_plain(logits), -1)
        loss = self._loss(log_q)
        each = (self.log_p.exp() * log_q.neg_().add_(self.log_p)).sum(-1)
        real = self._real
        if at_end:
            real = real & ~torch.nn.functional.pad(real, (0, 1))[:, 1:]
        kl = (each * real).sum(1).double() / real.sum(1)
        return kl.cpu().numpy(), loss.cpu().numpy()

    def _loss(self, log_p: Tensor) -> Tensor:
        own = log_p[:, :-1].gather(-1, self._ids[:, 1:, None])[..., 0]
        return -(own * self._counted).sum(1).double() / self._over


def _plain(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def padded(texts: Sequence[Int[Tensor, " token"]]) -> tuple[Tensor, Tensor]:
    """Texts as rows, each padded with its last token, and which tokens are not padding."""
    longest = max(len(ids) for ids in texts)
    filled = [torch.cat([ids, ids[-1:].expand(longest - len(ids))]) for ids in texts]
    lengths = torch.tensor([len(ids) for ids in texts])
    return torch.stack(filled), torch.arange(longest) < lengths[:, None]
