"""Pass a prompt through the model: block calls of every point that is measured, trajectories.

A point is one Jacobian's place: a pair of tokens of a prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from blockcoupling.config.choices import Context
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.measurement.states import gram, principal_components
from blockcoupling.measurement.verification import same_trajectory
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.final_norm import after_norm
from blockcoupling.transformer.recording import record_full, record_in_two
from blockcoupling.transformer.tokens import TokenizedPrompt, Tokens, token_pairs

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Point:
    """One Jacobian's place: a prompt and a pair of its tokens, with the recorded block calls."""

    prompt: str
    token_in: int
    token_out: int
    calls: list[BlockCall]
    decoded: bool

    @property
    def place(self) -> str:
        """Where it is, in words: the prompt, and t, or t1 → t2."""
        same = self.token_in == self.token_out
        token = f"{self.token_in}" if same else f"{self.token_in} → {self.token_out}"
        return f"prompt {self.prompt!r}, token {token}"


@dataclass(frozen=True)
class RecordedPrompt:
    """What passing one prompt through the model left behind."""

    prompt: TokenizedPrompt
    points: list[Point]
    gram: Float[np.ndarray, "token state state_other"]
    pca: Float[np.ndarray, "token state component"]
    explained: Float[np.ndarray, " component"]


@dataclass
class Recorder:
    """Records the points of prompts.

    Attributes:
        model: the model.
        blocks: its blocks.
        tokens: which tokens to measure (`Settings.tokens`).
        context: by decoding, or by the whole prompt's pass (`Settings.context`).
        final_norm: the norm to measure the last block after, if it is to be.
        device: where the model takes its tokens.
    """

    model: nn.Module
    blocks: Blocks
    tokens: Tokens
    context: Context
    final_norm: nn.Module | None
    device: torch.device
    _cannot_decode: bool = False

    def record(self, prompt: TokenizedPrompt, verify: bool) -> RecordedPrompt:
        """Pass a prompt through the model: its trajectories, and every point's block calls."""
        ids = prompt.input_ids.to(self.device)
        last = ids.shape[1] - 1
        points, states = [], None
        for a, b in token_pairs(self.tokens, last + 1):
            part = ids[:, : b + 1]
            decoded = self._in_two(part) if a == b else None
            if decoded is None:
                calls = record_full(self.model, self.blocks, part)
            else:
                before, calls = decoded
                if b == last:
                    states = states_of(prompt.id, before, calls)
            points.append(Point(prompt.id, a, b, calls, decoded is not None))
        if states is None or verify:
            whole = states_of(prompt.id, [], record_full(self.model, self.blocks, ids))
        else:
            whole = states
        states = whole if states is None else states
        for point in points:
            if point.decoded:
                same_trajectory(point.prompt, point.token_out, point.calls, whole)
            if self.final_norm is not None:
                point.calls[-1] = after_norm(point.calls[-1], self.final_norm)
        return RecordedPrompt(prompt, points, gram(states), *principal_components(states))

    def _in_two(
        self, ids: Int[Tensor, "1 token"]
    ) -> tuple[list[BlockCall], list[BlockCall]] | None:
        """The calls before the last token and on it; None for a model that cannot decode.

        Raises:
            UserError: for a model that cannot, where decoding was asked for.
        """
        if self.context == "full" or self._cannot_decode:
            return None
        try:
            return record_in_two(self.model, self.blocks, ids)
        except UserError as error:
            if self.context == "decode":
                raise
            logger.info("%s It is now.", error)
            self._cannot_decode = True
            return None


def states_of(
    prompt: str, before: Sequence[BlockCall], calls: Sequence[BlockCall]
) -> Float[np.ndarray, "token state embed"]:
    """X^0 … X^L of every token, taken at the blocks, float64, from one pass or from two."""
    seen = [
        # Blocks may be on several devices.
        torch.stack([s[0].cpu() for s in (part[0].input, *(c.output for c in part))], dim=1)
        for part in (before, calls)
        if part
    ]
    array = torch.cat(seen).double().numpy()
    if not np.isfinite(array).all():
        state = int(np.argwhere(~np.isfinite(array))[0][1])
        where = f"after block {state}" if state else "before the first block"
        raise MeasurementError(f"prompt {prompt!r}: the hidden state {where} is not finite")
    return array
