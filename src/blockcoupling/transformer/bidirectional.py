"""One token of a block among all the others, before and after it, which are held constant.

In a bidirectional model no cache holds what a token attends to. But J[t, t] holds all other tokens'
states fixed and with them, inside the block, their keys and values. So the block is called once on
the whole sequence, the keys and values that its attention receives are kept, and the block is then
called on the one token, whose own key and value replace the recorded ones. This is verified, not
assumed: a block that does anything with its tokens other than attend once gives another output or
another gradient this way, and is then differentiated as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blockcoupling.transformer.attention import (
    Asked,
    Surroundings,
    UnsupportedAttention,
    attend_to,
    hidden,
    linearized,
)
from blockcoupling.transformer.calls import BlockCall

if TYPE_CHECKING:
    from jaxtyping import Float

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attended:
    """What a block's attention received in one call on a whole sequence.

    Attributes:
        keys, values: of all tokens.
        mask: added to the scores; one row if all queries share it.
    """

    keys: Float[Tensor, "1 kv_head token key_dim"]
    values: Float[Tensor, "1 kv_head token value_dim"]
    mask: Float[Tensor, "1 head query token"]

    def bias(self, token: int) -> Float[Tensor, "1 head 1 token_and_own"]:
        """What is added to a token's scores: hidden at its position, its own at the end."""
        row = self.mask[:, :, token if self.mask.shape[2] > 1 else 0, None]
        own = row[..., token : token + 1]
        row = row.clone()
        row[..., token] = -torch.inf
        return torch.cat([row, own], dim=-1)


@dataclass(frozen=True)
class AloneCall(BlockCall):
    """A block's call on one token alone, which attends to the others as the whole call did.

    Attributes:
        token: its position, t.
        attended: what the attention of the whole call received.
    """

    token: int
    attended: Attended

    def bare(self) -> BlockCall:
        """The call without its surroundings, which the caller then provides."""
        return BlockCall(**{f.name: getattr(self, f.name) for f in fields(BlockCall)})

    def __call__(
        self, hidden: Float[Tensor, "prompt 1 embed"], **changed: Any
    ) -> Float[Tensor, "prompt 1 embed"]:
        """Call the block on another state of the token, with all other tokens as recorded."""
        with attend_to(_Among(self.attended, self.token), self.block):
            return self.bare()(hidden, **changed)


def attended_by(call: BlockCall) -> Attended | None:
    """What the attention of a call on all tokens receives; None if it cannot be recorded."""
    everyone = _Everyone(call.input.shape[1])
    try:
        with torch.no_grad(), attend_to(everyone, call.block):
            call(call.input)
    except (UnsupportedAttention, RuntimeError, TypeError, ValueError, IndexError) as error:
        # An attention with arguments of its own fails in its own way.
        logger.debug("a token cannot be separated from the others: %s", error)
        return None
    return everyone.attended if everyone.used_once else None


def alone(whole: BlockCall, token: int, attended: Attended) -> AloneCall:
    """The call of a block on one token, from its call on all of them.

    Every array argument with one row a token (positions, a mask) is reduced to the token's row.

    Args:
        whole: the call on all tokens.
        token: its position.
        attended: what the attention of the whole call received.
    """
    tokens = whole.input.shape[1]
    return AloneCall(
        block=whole.block,
        args=tuple(_row(value, token, tokens) for value in whole.args),
        kwargs={key: _row(value, token, tokens) for key, value in whole.kwargs.items()},
        place=whole.place,
        input=whole.input[:, token : token + 1],
        output=whole.output[:, token : token + 1],
        token=token,
        attended=attended,
    )


class Others(Surroundings):
    """The other tokens of several calls in one batch, linearized at each call's own token.

    Sequences of different lengths are padded on the left, and the bias hides the padding.

    Args:
        calls: one a token.
    """

    def __init__(self, calls: Sequence[AloneCall]) -> None:
        longest = max(call.attended.keys.shape[2] for call in calls)

        def batch(parts: list[Tensor], axis: int, fill: float = 0.0) -> Tensor:
            length = longest + (axis == -1)
            padded = []
            for part in parts:
                shape = list(part.shape)
                shape[axis] = length - shape[axis]
                padding = part.new_full(shape, fill)
                padded.append(torch.cat([padding, part], dim=axis) if shape[axis] else part)
            return torch.cat(padded)

        self._keys = batch([call.attended.keys for call in calls], 2)
        self._values = batch([call.attended.values for call in calls], 2)
        self._bias = batch([call.attended.bias(call.token) for call in calls], -1, -torch.inf)

    def attend(self, asked: Asked) -> Float[Tensor, "row 1 head value_dim"]:
        """As `linearized`; the mask is that of the whole call."""
        asked.demand_one_token(self._keys.shape[1])
        return linearized(asked, self._keys, self._values, self._bias)


class _Among(Surroundings):
    """The other tokens of one sequence, with softmax attention as it is usually computed."""

    def __init__(self, attended: Attended, token: int) -> None:
        self._attended, self._token = attended, token

    def attend(self, asked: Asked) -> Float[Tensor, "row 1 head value_dim"]:
        """Softmax attention of a token to the others and to itself."""
        asked.demand_one_token(self._attended.keys.shape[1])
        rows = asked.query.shape[0]
        keys = torch.cat([self._attended.keys.expand(rows, -1, -1, -1), asked.key], dim=2)
        values = torch.cat([self._attended.values.expand(rows, -1, -1, -1), asked.value], dim=2)
        return _softmax(asked, keys, values, self._attended.bias(self._token))


class _Everyone(Surroundings):
    """All tokens of a sequence, attending to each other; keeps what the attention receives."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self.attended: Attended | None = None

    def attend(self, asked: Asked) -> Float[Tensor, "1 token head value_dim"]:
        """Softmax attention of all tokens."""
        sizes = {(x.shape[0], x.shape[2]) for x in (asked.query, asked.key)}
        if sizes != {(1, self._tokens)}:
            raise UnsupportedAttention("not all tokens of one sequence at a time")
        mask = asked.mask
        if mask is not None and (mask.ndim != 4 or mask.shape[-1] != self._tokens):
            raise UnsupportedAttention("a mask of another length than the sequence")
        heads, queries = (1, 1) if mask is None else (mask.shape[-3], mask.shape[-2])
        bias = hidden(mask, asked.query.new_zeros(1, heads, queries, self._tokens))
        self.attended = Attended(asked.key, asked.value, bias)
        return _softmax(asked, asked.key, asked.value, bias)


def _softmax(
    asked: Asked,
    keys: Float[Tensor, "row kv_head key key_dim"],
    values: Float[Tensor, "row kv_head key value_dim"],
    bias: Tensor,
) -> Float[Tensor, "row query head value_dim"]:
    group = asked.query.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
    scores = asked.scale * (asked.query @ keys.mT)
    if asked.softcap is not None:
        scores = asked.softcap * torch.tanh(scores / asked.softcap)
    return ((scores + bias).softmax(-1) @ values).transpose(1, 2)


def _row(value: Any, token: int, tokens: int) -> Any:
    """A token's row of an array with one row a token; anything else unchanged."""
    if isinstance(value, tuple | list):
        return tuple(_row(part, token, tokens) for part in value)
    if isinstance(value, Tensor) and tokens in value.shape:
        return value.narrow(value.shape.index(tokens), token, 1)
    return value
