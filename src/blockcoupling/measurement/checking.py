"""What can be said against prompts before any long work starts."""

from __future__ import annotations

from typing import Any

from torch import nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.tokens import TokenizedPrompt, Tokens, token_pairs


def unfit(model: nn.Module, tokens: Tokens, prompt: TokenizedPrompt) -> str | None:
    """Why a prompt cannot be measured on this model; None if it can."""
    length = prompt.input_ids.shape[1]
    if length == 0:
        return "is empty: it has no token to measure. Remove it."
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None)
    if isinstance(limit, int) and 0 < limit < length:
        return f"has {length} tokens, the model's context holds {limit}. Shorten or remove it."
    vocabulary, largest = getattr(text, "vocab_size", None), int(prompt.input_ids.max())
    if isinstance(vocabulary, int) and largest >= vocabulary:
        return (
            f"has the token id {largest}, the model knows 0 … {vocabulary - 1}. Is it the "
            "model's own tokenizer?"
        )
    try:
        token_pairs(tokens, length)
    except UserError as error:
        return f"cannot be measured: {error}"
    return None
