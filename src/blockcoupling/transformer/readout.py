"""What a direction of the residual stream says: the tokens that the model's own head reads in it.

A direction u takes the place of the state after the last block, and the model's own final norm and
unembedding turn it into logits (`head.logits_after`), so that no architecture is named.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.agreement import GROWN, agree
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.head import Passage, logits_after, record_passage
from blockcoupling.transformer.running import text_config

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int, Int32, UInt8

AT_ONCE = 32
"""Directions in one pass through the head: vocabularies are large."""
BYTES = 32
"""Bytes kept of a token's text."""


@dataclass(frozen=True)
class Readout:
    """Reads directions out.

    Attributes:
        model: the model, with its head.
        blocks: its blocks.
        passage: any tokens that have passed through it.
        top: tokens kept of each direction.
        head: the context in which the head's weights are in memory.
        text: text of a token id; "" where that is unknown.
    """

    model: nn.Module
    blocks: Blocks
    passage: Passage
    top: int
    head: Callable[[], AbstractContextManager[object]] = nullcontext
    text: Callable[[int], str] = lambda token: ""
    _texts: dict[int, UInt8[np.ndarray, " byte"]] = field(default_factory=dict)

    def of(
        self, directions: Float[Tensor, "n embed"]
    ) -> tuple[Int32[np.ndarray, "n rank"], Float32[np.ndarray, "n rank"]]:
        """The ids of the top tokens of each direction, largest logit first, and their logits."""
        tokens, logits = [], []
        size = self.passage.input_ids.shape[1]
        like = self.passage.calls[-1].output
        with self.head():
            for some in directions.split(size):
                state = like.new_zeros(1, size, some.shape[-1])
                state[0, : len(some)] = some.to(like)
                read = logits_after(self.model, self.blocks, self.passage, state)[0, : len(some)]
                largest = read.float().topk(self.top, dim=-1)
                tokens.append(largest.indices.cpu().numpy().astype(np.int32))
                logits.append(largest.values.cpu().numpy())
        return np.concatenate(tokens), np.concatenate(logits)

    def texts(self, tokens: Int32[np.ndarray, "*any"]) -> UInt8[np.ndarray, "*any byte"]:
        """The texts of tokens, UTF-8: at most `BYTES` of each, whole characters, then zeros."""
        for token in np.unique(tokens).tolist():
            if token not in self._texts:
                self._texts[token] = _as_bytes(self.text(token))
        flat = [self._texts[token] for token in tokens.ravel().tolist()]
        return np.stack(flat).reshape(*tokens.shape, BYTES)


def find_readout(
    model: nn.Module,
    blocks: Blocks,
    ids: Int[Tensor, "1 token"],
    top: int,
    head: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Readout:
    """How directions of a model are read out, verified by the model's own logits of some tokens.

    Args:
        model: a language model with its head.
        blocks: its blocks.
        ids: a few tokens.
        top: tokens to keep of each direction.
        head: the context in which the head's weights are in memory.

    Raises:
        UserError: the model has no head for tokens, or fewer tokens than `top`.
    """
    longest = getattr(text_config(model), "max_position_embeddings", None)
    size = min(AT_ONCE, longest) if isinstance(longest, int) and longest > 0 else AT_ONCE
    repeated = ids.repeat(1, -(-size // ids.shape[1]))[:, :size]
    passage = record_passage(model, blocks, repeated)
    with head():
        mine = logits_after(model, blocks, passage, passage.calls[-1].output)
        with torch.no_grad():
            own = model(input_ids=repeated, use_cache=False).logits
    if not agree(mine, own, GROWN):
        raise UserError(f"{type(model).__name__} does not read its logits off its last block alone")
    if top > mine.shape[-1]:
        raise UserError(f"readout = {top}: this model knows {mine.shape[-1]} tokens")
    return Readout(model, blocks, passage, top, head)


def _as_bytes(text: str) -> UInt8[np.ndarray, " byte"]:
    cut = text.encode(errors="replace")[:BYTES].decode(errors="ignore").encode()
    return np.frombuffer(cut.ljust(BYTES, b"\0"), np.uint8)
