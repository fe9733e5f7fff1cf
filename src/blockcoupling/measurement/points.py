"""Pass a prompt through the model: block calls of every point that is measured, trajectories.

A point is one Jacobian's place: a pair of tokens of a prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from blockcoupling.config.choices import Context
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.measurement.states import gram, principal_components
from blockcoupling.measurement.verification import Verifier, other_state, refuse_unrepeatable
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.final_norm import after_norm
from blockcoupling.transformer.recording import CannotDecode, record_full, record_in_two
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
    calls: Sequence[BlockCall]
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
        verifier: what holds decoded tokens against the whole prompt.
    """

    model: nn.Module
    blocks: Blocks
    tokens: Tokens
    context: Context
    final_norm: nn.Module | None
    device: torch.device
    verifier: Verifier = field(default_factory=Verifier)

    def expect(self, prompts: Sequence[TokenizedPrompt]) -> None:
        """Take in which prompts come next, so that the right ones of them are verified."""
        self.verifier.plan(
            (b, prompt.id)
            for prompt in prompts
            for a, b in token_pairs(self.tokens, prompt.input_ids.shape[1])
            if a == b
        )

    def record(self, prompt: TokenizedPrompt) -> RecordedPrompt:
        """Pass a prompt through the model: its trajectories, and every point's block calls.

        Raises:
            UserError: for a prompt that cannot be decoded, where that was asked for.
            MeasurementError: naming prompt and block, for one whose numbers could not be trusted.
        """
        ids = prompt.input_ids.to(self.device).clone()  # may come from inference mode
        last = ids.shape[1] - 1
        whole = record_full(self.model, self.blocks, ids)
        states = states_of(prompt.id, [], whole)
        points, trajectories = [], states
        for a, b in token_pairs(self.tokens, last + 1):
            decoded = self._decoded(prompt.id, ids[:, : b + 1], whole, states) if a == b else None
            if decoded is None:
                points.append(Point(prompt.id, a, b, whole, False))
                continue
            before, calls = decoded
            points.append(Point(prompt.id, a, b, calls, True))
            if b == last:
                trajectories = states_of(prompt.id, before, calls)
        if not all(point.decoded for point in points):
            refuse_unrepeatable(prompt.id, whole)
        if self.final_norm is not None:
            for point in points:
                point.calls = [*point.calls[:-1], after_norm(point.calls[-1], self.final_norm)]
        return RecordedPrompt(
            prompt, points, gram(trajectories), *principal_components(trajectories)
        )

    def _decoded(
        self,
        prompt: str,
        ids: Int[Tensor, "1 token"],
        whole: Sequence[BlockCall],
        states: Float[np.ndarray, "token state embed"],
    ) -> tuple[list[BlockCall], list[BlockCall]] | None:
        """The calls before the last token and on it; None where decoding cannot be trusted.

        Raises:
            UserError: instead, where decoding was asked for.
        """
        if self.context == "full":
            return None
        token = ids.shape[1] - 1
        try:
            before, calls = record_in_two(self.model, self.blocks, ids)
        except CannotDecode as error:
            why = error.reason
        else:
            wrong = other_state(token, calls, states) or self.verifier.other_jacobian(
                prompt, token, calls, whole
            )
            if wrong is None:
                return before, calls
            why = f"decoding token {token} with a cache {wrong}"
        if self.context == "decode":
            raise UserError(f"prompt {prompt!r}: {why}. Measure this model with context='full'.")
        logger.info("prompt %r: %s. It is measured by the whole prompt's pass.", prompt, why)
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
