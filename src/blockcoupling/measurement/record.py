"""Pass prompts through the model: block calls at every measured position, and hidden states.

A position is the place of one Jacobian: a pair of tokens of a prompt (or of an image).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.measurement.prepare import Prepared
from blockcoupling.measurement.prompts import Prompt
from blockcoupling.measurement.verification import other_state, refuse_unrepeatable
from blockcoupling.transformer.bidirectional import Attended, alone, attended_by
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.final_norm import after_norm
from blockcoupling.transformer.recording import CannotDecode, record_in_two, record_whole
from blockcoupling.transformer.streaming import in_lockstep
from blockcoupling.transformer.tokens import MEAN

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Position:
    """The place of one Jacobian: a prompt and a pair of its tokens, with the recorded block calls.

    Attributes:
        prompt: its id.
        token_in, token_out: t1 and t2; both MEAN for the mean over patches.
        calls: of every block.
        decoded: whether they are of the one token by itself (its context in a cache, or the other
            tokens held constant).
        patches: for a mean, the positions that it is the mean of.
    """

    prompt: str
    token_in: int
    token_out: int
    calls: Sequence[BlockCall]
    decoded: bool
    patches: Sequence[Position] = ()

    @property
    def by_itself(self) -> bool:
        """Whether one token at a time passes through the blocks."""
        return self.decoded or (bool(self.patches) and all(p.decoded for p in self.patches))

    @property
    def place(self) -> str:
        """Where it is, for messages: the prompt, and t, or t1 → t2."""
        if self.patches:
            return f"prompt {self.prompt!r}, mean over patches"
        same = self.token_in == self.token_out
        token = f"{self.token_in}" if same else f"{self.token_in} → {self.token_out}"
        return f"prompt {self.prompt!r}, token {token}"


@dataclass(frozen=True)
class RecordedPrompt:
    """What a forward pass of one prompt leaves behind.

    Attributes:
        prompt: the prompt.
        positions: where Jacobians are taken.
        states: X^0 … X^L of every token, float64.
        returned: what the model returned for the whole prompt.
    """

    prompt: Prompt
    positions: list[Position]
    states: Float[np.ndarray, "token state embed"]
    returned: Any


def record_batch(prepared: Prepared, prompts: Sequence[Prompt]) -> list[RecordedPrompt]:
    """Record all positions of some prompts, each with its pairs of tokens.

    Raises:
        UserError: a prompt cannot be decoded, and decoding was asked for.
        MeasurementError: numbers could not be trusted; the message names prompt and block.
    """
    causal = prepared.is_causal
    prepared.verifier.plan(
        (
            (b if causal else prompt.length - 1, prompt.id)
            for prompt in prompts
            for a, b in prompt.pairs
            if a == b
        ),
        # In a bidirectional model, one length says little about prompts of the same length.
        each_batch=not causal,
    )
    if prepared.weights is None:
        return [_record(prepared, prompt) for prompt in prompts]
    runs = [partial(_record, prepared, prompt) for prompt in prompts]
    return in_lockstep(prepared.weights, prepared.blocks.modules, runs)


def _record(prepared: Prepared, prompt: Prompt) -> RecordedPrompt:
    given = prompt.given.to(prepared.device).clone()  # may come from inference mode
    causal, last = prepared.is_causal, prompt.length - 1
    whole, returned = record_whole(prepared.model, prepared.blocks, given, every_logit=causal)
    states = _states_of(prompt.id, [], whole)
    positions, trajectories = [], states
    if not causal:
        positions = _bidirectional(prepared, prompt, whole)
    for a, b in prompt.pairs if causal else ():
        found = None
        if a == b:
            found = _decoded(prepared, prompt.id, given[:, : b + 1], whole, states)
        if found is None:
            positions.append(Position(prompt.id, a, b, whole, False))
            continue
        before, calls = found
        positions.append(Position(prompt.id, a, b, calls, True))
        if b == last:
            trajectories = _states_of(prompt.id, before, calls)
    if not all(position.by_itself for position in positions):
        refuse_unrepeatable(prompt.id, whole)
    if (norm := prepared.final_norm) is not None:
        for position in (q for p in positions for q in (p, *p.patches)):
            position.calls = [*position.calls[:-1], after_norm(position.calls[-1], norm)]
    return RecordedPrompt(prompt, positions, trajectories, returned)


def _decoded(
    prepared: Prepared,
    prompt: str,
    ids: Int[Tensor, "1 token"],
    whole: Sequence[BlockCall],
    states: Float[np.ndarray, "token state embed"],
) -> tuple[list[BlockCall], list[BlockCall]] | None:
    """The calls before the last token and on it; None where decoding cannot be trusted.

    Raises:
        UserError: instead, where decoding was asked for.
    """
    context, token = prepared.settings.context, ids.shape[1] - 1
    if context == "full":
        return None
    try:
        before, calls = record_in_two(prepared.model, prepared.blocks, ids, context_again=False)
    except CannotDecode as error:
        why = error.reason
    else:
        wrong = other_state(token, calls, states) or prepared.verifier.other_jacobian(
            prompt, token, calls, whole
        )
        if wrong is None:
            return before, calls
        why = f"decoding token {token} with a cache {wrong}"
    if context == "decode":
        raise UserError(f"prompt {prompt!r}: {why}. Measure this model with context='full'.")
    logger.info("prompt %r: %s. It is measured by the full forward pass.", prompt, why)
    return None


def _bidirectional(
    prepared: Prepared, prompt: Prompt, whole: Sequence[BlockCall]
) -> list[Position]:
    """The positions of a bidirectional model: single tokens where that can be trusted.

    Raises:
        UserError: decoding was asked for.
    """
    context = prepared.settings.context
    if context == "decode":
        raise UserError(
            f"prompt {prompt.id!r}: {type(prepared.model).__name__} is bidirectional, so there is "
            "no decoding. Leave context as it is, or measure it with context='full'."
        )
    attended: list[Attended] | None = None
    if context == "auto" and any(a == b for a, b in prompt.pairs):
        found = [attended_by(call) for call in whole]
        attended = [each for each in found if each is not None]
        if len(attended) < len(whole):
            logger.info(
                "prompt %r: the attention of block %d cannot be separated into single tokens. Its "
                "tokens are measured by the full forward pass.",
                prompt.id,
                found.index(None) + 1,
            )
            attended = None

    def position(a: int, b: int) -> Position:
        calls = None
        if a == b and attended is not None:
            calls = _alone(prepared, prompt, b, whole, attended)
        return Position(prompt.id, a, b, calls or whole, calls is not None)

    positions = []
    for a, b in prompt.pairs:
        if a == MEAN:
            patches = [position(t, t) for t in prompt.places["mean"]]
            positions.append(Position(prompt.id, a, b, whole, False, patches))
        else:
            positions.append(position(a, b))
    return positions


def _alone(
    prepared: Prepared,
    prompt: Prompt,
    token: int,
    whole: Sequence[BlockCall],
    attended: Sequence[Attended],
) -> list[BlockCall] | None:
    """The calls on one token alone; None where they differ from those of the full pass."""
    calls: list[BlockCall] = [
        alone(call, token, what) for call, what in zip(whole, attended, strict=True)
    ]
    try:
        wrong = prepared.verifier.other_jacobian(
            prompt.id, token, calls, whole, last=prompt.length - 1
        )
    except (UserError, MeasurementError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # A block that needs all of its tokens can fail in any way.
        wrong = f"fails ({next(iter(str(error).splitlines()), '') or type(error).__name__})"
    if wrong is None:
        return calls
    logger.info(
        "prompt %r: token %d taken by itself among the others %s. It is measured by the full "
        "forward pass.",
        prompt.id,
        token,
        wrong,
    )
    return None


def _states_of(
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
