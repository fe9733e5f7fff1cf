"""Prompts as the model sees them, and which of their tokens are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from blockcoupling.errors import UserError

Tokens = Literal["last", "all"] | Sequence[int] | Sequence[tuple[int, int]] | dict[str, int]


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as the model sees it.

    Attributes:
        id: stable name of the prompt.
        input_ids: (1, token).
        token_text: the text of every token ("" where the tokenizer cannot say).
    """

    id: str
    input_ids: Int[Tensor, "1 token"]
    token_text: tuple[str, ...]


def tokenize(tokenizer: Callable[[str], Any], text: str, name: str) -> TokenizedPrompt:
    """Turn a text into a prompt of one row of token ids (of none, for an empty text).

    Args:
        tokenizer: text → input_ids, or → a mapping that holds them.
        text: the text.
        name: the prompt's id.

    Raises:
        UserError: if the tokenizer returns more than one row of ids.
    """
    encoded = tokenizer(text)
    if hasattr(encoded, "keys"):
        encoded = encoded["input_ids"]
    ids = torch.as_tensor(encoded, dtype=torch.long)
    if ids.ndim > 2 or (ids.ndim == 2 and ids.shape[0] != 1):
        raise UserError(
            f"prompt {name!r}: the tokenizer returned input_ids of shape {tuple(ids.shape)}; one "
            "text has one row of them, (token,) or (1, token)"
        )
    ids = ids.reshape(1, -1)
    decode = getattr(tokenizer, "decode", None)
    texts = tuple(str(decode([i])) if decode else "" for i in ids[0].tolist())
    return TokenizedPrompt(name, ids, texts)


def token_pairs(tokens: Tokens, length: int) -> list[tuple[int, int]]:
    """The pairs (t1, t2) to measure in a prompt of `length` tokens.

    Args:
        tokens: see `Settings.tokens`.
        length: how many tokens the prompt has.

    Raises:
        UserError: if no pair is asked for, one is out of range, or has t1 > t2 (exactly zero in a
            causal model).
    """
    pairs = []
    for asked in _chosen(tokens, length):
        first, second = (asked, asked) if isinstance(asked, Integral) else asked
        a, b = (int(t) + length if t < 0 else int(t) for t in (first, second))
        if not (0 <= a < length and 0 <= b < length):
            raise UserError(f"token {asked} is asked for, the prompt has tokens 0 … {length - 1}")
        if a > b:
            raise UserError(
                f"tokens {asked}: no later token acts on an earlier one in a causal model; the "
                "Jacobian is exactly zero. Ask for t1 ≤ t2."
            )
        pairs.append((a, b))
    if not pairs:
        raise UserError("the list of tokens to measure is empty")
    return pairs


def _chosen(tokens: Tokens, length: int) -> Sequence[Any]:
    if isinstance(tokens, str) and tokens in ("last", "all"):
        return [length - 1] if tokens == "last" else range(length)
    if isinstance(tokens, Mapping) and set(tokens) == {"every"} and int(tokens["every"]) > 0:
        return range(length - 1, -1, -int(tokens["every"]))[::-1]
    if isinstance(tokens, str | Mapping):
        raise UserError(
            f"tokens = {tokens!r}: choose last, all, a list of positions or of pairs, or "
            "{every: n} with n ≥ 1"
        )
    return tokens
