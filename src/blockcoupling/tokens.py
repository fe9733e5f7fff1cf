"""Prompts as the model sees them, and which of their tokens are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """Turn a text into a prompt of one row of token ids.

    Raises:
        UserError: if the text has no token.
    """
    encoded = tokenizer(text)
    if hasattr(encoded, "keys"):
        encoded = encoded["input_ids"]
    ids = torch.as_tensor(encoded, dtype=torch.long).reshape(1, -1)
    if ids.shape[1] == 0:
        raise UserError(f"prompt {name!r} is empty: it has no token to measure. Remove it.")
    decode = getattr(tokenizer, "decode", None)
    texts = tuple(str(decode([i])) if decode else "" for i in ids[0].tolist())
    return TokenizedPrompt(name, ids, texts)


def token_pairs(tokens: Tokens, length: int) -> list[tuple[int, int]]:
    """The pairs (t1, t2) to measure in a prompt of `length` tokens.

    Args:
        tokens: see `Settings.tokens`.
        length: how many tokens the prompt has.

    Raises:
        UserError: if a pair is out of range, or has t1 > t2 (exactly zero in a causal model).
    """
    if isinstance(tokens, str):
        if tokens not in ("last", "all"):
            raise UserError(f"tokens = {tokens!r}: choose last, all, a list, or {{every: n}}")
        chosen: list[Any] = [length - 1] if tokens == "last" else list(range(length))
    elif isinstance(tokens, dict):
        chosen = list(range(length - 1, -1, -int(tokens["every"])))[::-1]
    else:
        chosen = list(tokens)
    pairs = [(t, t) if isinstance(t, int) else (int(t[0]), int(t[1])) for t in chosen]
    pairs = [(a + length if a < 0 else a, b + length if b < 0 else b) for a, b in pairs]
    for a, b in pairs:
        if not (0 <= a < length and 0 <= b < length):
            raise UserError(f"tokens ({a}, {b}) asked for, the prompt has tokens 0 … {length - 1}")
        if a > b:
            raise UserError(
                f"tokens ({a}, {b}): no later token acts on an earlier one in a causal model; the "
                "Jacobian is exactly zero. Ask for t1 ≤ t2."
            )
    return pairs
