"""What prompts and images have in common, and why one cannot be measured on a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.images import Picture, image_parts, takes_images, takes_texts
from blockcoupling.transformer.tokens import TokenizedPrompt

Prompt = TokenizedPrompt | Picture


def refuse_texts(model: nn.Module) -> None:
    """Refuse texts for a model that takes images.

    Raises:
        UserError: saying so.
    """
    if takes_images(model):
        raise UserError(
            f"{type(model).__name__} expects images: pass pixel values (bc.measure(model, "
            "images=pixel_values), blockcoupling measure MODEL --image FILE)"
        )


def refuse_images(model: nn.Module) -> None:
    """Refuse images for a model that takes texts.

    Raises:
        UserError: saying so.
    """
    if takes_texts(model):
        raise UserError(
            f"{type(model).__name__} expects texts: pass prompts. To measure images with a model "
            "of images and texts, pass its vision tower"
            + "".join(f", model.{part}" for part in image_parts(model))
        )


def unfit(model: nn.Module, prompt: Prompt) -> str | None:
    """Why a prompt cannot be passed through a model; None if it can."""
    if isinstance(prompt, Picture):
        return None  # an image has been passed through the model already
    length = prompt.length
    if length == 0:
        return "is empty: it has no token to measure. Remove it."
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None)
    if isinstance(limit, int) and limit > 0:
        limit = min([limit, *_after_padding(model)])
    if isinstance(limit, int) and 0 < limit < length:
        return f"has {length} tokens, the model's context holds {limit}. Shorten or remove it."
    vocabulary, largest = getattr(text, "vocab_size", None), int(prompt.input_ids.max())
    if isinstance(vocabulary, int) and largest >= vocabulary:
        return (
            f"has the token id {largest}, the model knows 0 … {vocabulary - 1}. Is it the "
            "model's own tokenizer?"
        )
    return None


def _after_padding(model: object) -> list[int]:
    """Numbers of positions where those up to the padding's are unused, as in RoBERTa."""
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    return [
        module.num_embeddings - module.padding_idx - 1
        for name, module in modules
        if isinstance(module, nn.Embedding) and module.padding_idx is not None
        if name.rpartition(".")[2] in ("position_embeddings", "embed_positions")
    ]
