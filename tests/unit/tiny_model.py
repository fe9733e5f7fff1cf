"""A tiny trained model in a Hugging Face directory, for tests of what reads one."""

from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from blockcoupling.lab.training.tokenizer import VOCABULARY, byte_tokenizer


def save_tiny_model(directory: Path, *, hidden_size: int = 64, context: int = 64) -> Path:
    """Write a random byte-level GPT-NeoX of two blocks with its tokenizer."""
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=context,
        bos_token_id=256,
        eos_token_id=256,
        initializer_range=0.2,  # far from uniform predictions
    )
    torch.manual_seed(0)
    GPTNeoXForCausalLM(config).save_pretrained(directory)
    byte_tokenizer(context).save_pretrained(directory)
    return directory
