"""One token of a block among all the others, which are held constant: before it and behind it.

In a model that looks both ways no cache tells what a token attends to. But J[t, t] holds all other
tokens' states fixed, and with them, at the block, their keys and values: it is enough to call the
block once on the whole sequence, to keep the keys and values that its attention was given, and then
to call it on the one token, whose own key and value stand in their place. Nothing is taken for
granted: a block that does anything else with its tokens than attend once gives another output or
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
    """What a block's attention was given in one call on a whole sequence.

    Attributes:
        keys, values: of all tokens.
        mask: what is added to the scores; of one row where all queries share it.
    """

    keys: Float[Tensor, "1 kv_head token key_dim"]
    values: Float[Tensor, "1 kv_head token value_dim"]
    mask: Float[Tensor, "1 head query token"]

    def bias(self, token: int) -> Float[Tensor, "1 head 1 token_and_own"]:
        """What is added to a token's scores: its own hidden in its place, and at the end."""
        row = self.mask[:, :, token if self.mask.shape[2] > 1 else 0, None]
        own = row[..., token : token + 1]
        row = row.clone()
        row[..., token] = -torch.inf
        return torch.cat([row, own], dim=-1)


@dataclass(frozen=True)
class AloneCall(BlockCall):
    """A block's call on one token alone, that attends to the others as the whole call did.

    Attributes:
        token: which one, t.
        attended: what the whole call's attention was given.
    """

    token: int
    attended: Attended

    def bare(self) -> BlockCall:
        """The call by itself: the block attends as it is told to by whoever calls it."""
        return BlockCall(**{f.name: getattr(self, f.name) for f in fields(BlockCall)})

    def __call__(
        self, hidden: Float[Tensor, "prompt 1 embed"], **changed: Any
    ) -> Float[Tensor, "prompt 1 embed"]:
        """Call the block on another state of the token, all other tokens as they were."""
        with attend_to(_Among(self.attended, self.token), self.block):
            return self.bare()(hidden, **changed)


def attended_by(call: BlockCall) -> Attended | None:
    """What the attention of a whole sequence's call is given; None where it cannot be told.

    Args:
        call: a call on all tokens.
    """
    everyone = _Everyone(call.input.shape[1])
    try:
        with torch.no_grad(), attend_to(everyone, call.block):
            call(call.input)
    except (UnsupportedAttention, RuntimeError, TypeError, ValueError, IndexError) as error:
        # An attention that is asked otherwise than all others are trips in its own way.
        logger.debug("a token cannot be told from the others: %s", error)
        return None
    return everyone.attended if everyone.used_once else None


def alone(whole: BlockCall, token: int, attended: Attended) -> AloneCall:
    """The call of a block on one token, from its call on all of them.

    Of every array among the arguments that goes along the tokens (positions, a mask) the token's
    own row is taken.

    Args:
        whole: the call on all tokens.
        token: which one.
        attended: what its attention was given.
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
    """The other tokens of several calls side by side, each on its own token; linearized at it.

    Sequences of different lengths are padded on the left, the padding hidden by the bias.

    Args:
        calls: one a token.
    """

    def __init__(self, calls: Sequence[AloneCall]) -> None:
        longest = max(call.attended.keys.shape[2] for call in calls)

        def beside(parts: list[Tensor], axis: int, fill: float = 0.0) -> Tensor:
            length = longest + (axis == -1)
            padded = []
            for part in parts:
                shape = list(part.shape)
                shape[axis] = length - shape[axis]
                padding = part.new_full(shape, fill)
                padded.append(torch.cat([padding, part], dim=axis) if shape[axis] else part)
            return torch.cat(padded)

        self._keys = beside([call.attended.keys for call in calls], 2)
        self._values = beside([call.attended.values for call in calls], 2)
        self._bias = beside([call.attended.bias(call.token) for call in calls], -1, -torch.inf)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        softcap: float | None,
    ) -> Tensor:
        """As `linearized`; the mask is the one of the whole call."""
        _demand_one(query, key, self._keys)
        return linearized(query, key, value, self._keys, self._values, self._bias, scaling, softcap)


class _Among(Surroundings):
    """The other tokens of one sequence, attended to by the formula as it stands."""

    def __init__(self, attended: Attended, token: int) -> None:
        self._attended, self._token = attended, token

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        softcap: float | None,
    ) -> Tensor:
        """Softmax attention of a token to the others and to itself."""
        _demand_one(query, key, self._attended.keys)
        rows = query.shape[0]
        keys = torch.cat([self._attended.keys.expand(rows, -1, -1, -1), key], dim=2)
        values = torch.cat([self._attended.values.expand(rows, -1, -1, -1), value], dim=2)
        return _softmax(query, keys, values, self._attended.bias(self._token), scaling, softcap)


class _Everyone(Surroundings):
    """All tokens of a sequence, attending to each other; what they were given is kept."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self.attended: Attended | None = None

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        softcap: float | None,
    ) -> Tensor:
        """Softmax attention of all tokens."""
        if {*query.shape[:1], *key.shape[:1]} != {1} or {query.shape[2], key.shape[2]} != {
            self._tokens
        }:
            raise UnsupportedAttention("not all tokens of one sequence at a time")
        if mask is not None and (mask.ndim != 4 or mask.shape[-1] != self._tokens):
            raise UnsupportedAttention("a mask of another length than the sequence")
        heads, queries = (1, 1) if mask is None else (mask.shape[-3], mask.shape[-2])
        bias = hidden(mask, query.new_zeros(1, heads, queries, self._tokens))
        self.attended = Attended(key, value, bias)
        return _softmax(query, key, value, bias, scaling, softcap)


def _softmax(
    query: Float[Tensor, "row head query key_dim"],
    keys: Float[Tensor, "row kv_head key key_dim"],
    values: Float[Tensor, "row kv_head key value_dim"],
    bias: Tensor,
    scaling: float,
    softcap: float | None,
) -> Float[Tensor, "row query head value_dim"]:
    group = query.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
    scores = scaling * (query @ keys.mT)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return ((scores + bias).softmax(-1) @ values).transpose(1, 2)


def _demand_one(query: Tensor, key: Tensor, keys: Tensor) -> None:
    if query.shape[2] != 1 or key.shape[2] != 1 or key.shape[1] != keys.shape[1]:
        raise UnsupportedAttention("not one token at a time")


def _row(value: Any, token: int, tokens: int) -> Any:
    """A token's row of an array that goes along the tokens; anything else as it is."""
    if isinstance(value, tuple | list):
        return tuple(_row(part, token, tokens) for part in value)
    if isinstance(value, Tensor) and tokens in value.shape:
        return value.narrow(value.shape.index(tokens), token, 1)
    return value
