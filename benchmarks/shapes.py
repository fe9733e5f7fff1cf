"""Random models of known shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Shape:
    """A Llama-like shape; vocabulary and context do not enter the measurement."""

    name: str
    dimension: int
    blocks: int
    heads: int
    kv_heads: int
    intermediate: int


SMALL = Shape("d = 768, 12 blocks", 768, 12, 12, 12, 2048)
LARGE = Shape("d = 2048, 22 blocks", 2048, 22, 32, 4, 5632)
LLAMA_8B = Shape("Llama-3-8B blocks", 4096, 32, 32, 8, 14336)
LLAMA_70B = Shape("Llama-3-70B blocks", 8192, 80, 64, 8, 28672)
TINY = Shape("d = 64, 3 blocks (smoke test)", 64, 3, 4, 4, 128)


def random_llama(
    shape: Shape,
    blocks: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LlamaForCausalLM:
    """A model of the shape with freshly initialised weights.

    Args:
        shape: its widths.
        blocks: fewer blocks than the shape has.
        device: where it is made.
        dtype: of its weights.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=shape.dimension,
        intermediate_size=shape.intermediate,
        num_hidden_layers=blocks or shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
    )
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, attn_implementation="eager", dtype=dtype)
    return model.eval().requires_grad_(False)


def prompts(count: int, tokens: int, device: str = "cpu") -> list[torch.Tensor]:
    """Random prompts, each (1, tokens)."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 1000, (1, tokens), generator=generator).to(device) for _ in range(count)
    ]
