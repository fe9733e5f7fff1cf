"""Pass a prompt through the model: block calls of every point that is measured, trajectories.

A point is one Jacobian's place: a pair of tokens of a prompt (or of an image, which is one here).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from blockcoupling.config.choices import Context
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.measurement.states import (
    gram,
    neighbours_cka,
    principal_components,
    rankme,
)
from blockcoupling.measurement.verification import Verifier, other_state, refuse_unrepeatable
from blockcoupling.transformer.bidirectional import Attended, alone, attended_by
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.final_norm import after_norm
from blockcoupling.transformer.images import Picture
from blockcoupling.transformer.recording import CannotDecode, record_in_two, record_whole
from blockcoupling.transformer.tokens import MEAN, TokenizedPrompt, Tokens, token_pairs

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

logger = logging.getLogger(__name__)

Prompt = TokenizedPrompt | Picture


@dataclass(eq=False)
class Point:
    """One Jacobian's place: a prompt and a pair of its tokens, with the recorded block calls.

    Attributes:
        prompt: its id.
        token_in, token_out: t1 and t2; both MEAN for the mean over patches.
        calls: of every block.
        decoded: whether they are of the one token by itself (its context in a cache, or the other
            tokens held constant).
        patches: of a mean, the points that it is the mean of.
    """

    prompt: str
    token_in: int
    token_out: int
    calls: Sequence[BlockCall]
    decoded: bool
    patches: Sequence[Point] = ()

    @property
    def by_itself(self) -> bool:
        """Whether one token at a time passes the blocks."""
        return self.decoded or (bool(self.patches) and all(p.decoded for p in self.patches))

    @property
    def place(self) -> str:
        """Where it is, in words: the prompt, and t, or t1 → t2."""
        if self.patches:
            return f"prompt {self.prompt!r}, mean over patches"
        same = self.token_in == self.token_out
        token = f"{self.token_in}" if same else f"{self.token_in} → {self.token_out}"
        return f"prompt {self.prompt!r}, token {token}"


@dataclass(frozen=True)
class RecordedPrompt:
    """What passing one prompt through the model left behind.

    Attributes:
        prompt: the prompt.
        points: where Jacobians are taken.
        gram, pca, explained, cka, rankme: of its states (`measurement.states`).
        returned: what the model returned for the whole prompt.
    """

    prompt: Prompt
    points: list[Point]
    gram: Float[np.ndarray, "token state state_other"]
    pca: Float[np.ndarray, "token state component"]
    explained: Float[np.ndarray, " component"]
    cka: Float[np.ndarray, " block"]
    rankme: float
    returned: Any


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
        causal: whether earlier tokens alone act on a token.
        verifier: what holds tokens by themselves against the whole prompt.
    """

    model: nn.Module
    blocks: Blocks
    tokens: Tokens
    context: Context
    final_norm: nn.Module | None
    device: torch.device
    causal: bool = True
    verifier: Verifier = field(default_factory=Verifier)

    def pairs(self, prompt: Prompt) -> list[tuple[int, int]]:
        """The pairs of tokens to measure in a prompt."""
        return token_pairs(self.tokens, prompt.length, prompt.places, self.causal)

    def expect(self, prompts: Sequence[Prompt]) -> None:
        """Take in which prompts come next, so that the right ones of them are verified."""
        self.verifier.plan(
            (
                (b if self.causal else prompt.length - 1, prompt.id)
                for prompt in prompts
                for a, b in self.pairs(prompt)
                if a == b
            ),
            # A sequence that is the same length as the others says little about them here.
            each_batch=not self.causal,
        )

    def record(self, prompt: Prompt) -> RecordedPrompt:
        """Pass a prompt through the model: its trajectories, and every point's block calls.

        Raises:
            UserError: for a prompt that cannot be decoded, where that was asked for.
            MeasurementError: naming prompt and block, for one whose numbers could not be trusted.
        """
        given = prompt.given.to(self.device).clone()  # may come from inference mode
        last = prompt.length - 1
        whole, returned = record_whole(self.model, self.blocks, given, every_logit=self.causal)
        states = states_of(prompt.id, [], whole)
        points, trajectories = [], states
        if not self.causal:
            points = self._among_others(prompt, whole)
        for a, b in self.pairs(prompt) if self.causal else ():
            decoded = self._decoded(prompt.id, given[:, : b + 1], whole, states) if a == b else None
            if decoded is None:
                points.append(Point(prompt.id, a, b, whole, False))
                continue
            before, calls = decoded
            points.append(Point(prompt.id, a, b, calls, True))
            if b == last:
                trajectories = states_of(prompt.id, before, calls)
        if not all(point.by_itself for point in points):
            refuse_unrepeatable(prompt.id, whole)
        if self.final_norm is not None:
            for point in (q for p in points for q in (p, *p.patches)):
                point.calls = [*point.calls[:-1], after_norm(point.calls[-1], self.final_norm)]
        return RecordedPrompt(
            prompt,
            points,
            gram(trajectories),
            *principal_components(trajectories),
            neighbours_cka(trajectories),
            rankme(trajectories[:, -1]),
            returned,
        )

    def _among_others(self, prompt: Prompt, whole: Sequence[BlockCall]) -> list[Point]:
        """The points of a model that looks both ways: tokens alone where that can be trusted.

        Raises:
            UserError: where decoding was asked for.
        """
        if self.context == "decode":
            raise UserError(
                f"prompt {prompt.id!r}: {type(self.model).__name__} looks both ways, so that there "
                "is no decoding. Leave context as it is, or measure it with context='full'."
            )
        attended: list[Attended] | None = None
        if self.context == "auto" and any(a == b for a, b in self.pairs(prompt)):
            found = [attended_by(call) for call in whole]
            attended = [each for each in found if each is not None]
            if len(attended) < len(whole):
                logger.info(
                    "prompt %r: block %d does not let one token be told from the others. Its "
                    "tokens are measured by the whole prompt's pass.",
                    prompt.id,
                    found.index(None) + 1,
                )
                attended = None

        def point(a: int, b: int) -> Point:
            calls = None if a != b or attended is None else self._alone(prompt, b, whole, attended)
            return Point(prompt.id, a, b, calls or whole, calls is not None)

        points = []
        for a, b in self.pairs(prompt):
            if a == MEAN:
                patches = [point(t, t) for t in prompt.places["mean"]]
                points.append(Point(prompt.id, a, b, whole, False, patches))
            else:
                points.append(point(a, b))
        return points

    def _alone(
        self,
        prompt: Prompt,
        token: int,
        whole: Sequence[BlockCall],
        attended: Sequence[Attended],
    ) -> list[BlockCall] | None:
        """The calls on one token alone; None where they are not those of the whole pass."""
        calls: list[BlockCall] = [
            alone(call, token, what) for call, what in zip(whole, attended, strict=True)
        ]
        try:
            wrong = self.verifier.other_jacobian(
                prompt.id, token, calls, whole, last=prompt.length - 1
            )
        except (UserError, MeasurementError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            # A block that needs all of its tokens fails in as many ways as there are blocks.
            wrong = f"fails ({next(iter(str(error).splitlines()), '') or type(error).__name__})"
        if wrong is None:
            return calls
        logger.info(
            "prompt %r: token %d taken by itself among the others %s. It is measured by the whole "
            "prompt's pass.",
            prompt.id,
            token,
            wrong,
        )
        return None

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
