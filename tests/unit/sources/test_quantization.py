"""Weights that bitsandbytes does not round are refused, not called rounded."""

from pathlib import Path

import pytest
import torch
from architectures import small_model
from tiny_model import save_tiny_model
from torch import nn
from transformers import ViTConfig, ViTModel

from blockcoupling.errors import UserError
from blockcoupling.sources.models import load_model
from blockcoupling.sources.quantization import refuse_unrounded


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_fused_experts_are_counted(family: str) -> None:
    model = small_model(family)
    fused = [p for p in model.parameters() if p.ndim == 3]
    count = sum(p.numel() for p in fused)
    with pytest.raises(UserError, match=f"{count:,} values .* would not be rounded"):
        refuse_unrounded(model)


def test_convolutions_and_tokens_of_images_are_no_stacks_of_matrices() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Conv1d(4, 4, 3), nn.Linear(4, 4))
    refuse_unrounded(model)
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32)
    refuse_unrounded(ViTModel(config))


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_mixture_of_experts_is_not_loaded_as_rounded(tmp_path: Path, kind: str) -> None:
    save_tiny_model(tmp_path)  # for its tokenizer
    small_model("mixtral", torch.float32).save_pretrained(tmp_path)
    record = {
        "name": "experts",
        "checkpoint": "main",
        "source": "local",
        "path": str(tmp_path),
        "dtype": "float32",
        "model_type": "mixtral",
        "quantization": kind,
    }
    with pytest.raises(UserError, match="would not be rounded"):
        load_model(record, device="cpu")
