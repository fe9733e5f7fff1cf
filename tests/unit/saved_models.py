"""Models in files: the same weights in float32 and in bfloat16, with random buffers."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

# Decays of linear attention, for a prompt and for the next token: they have to agree.
_OF_EACH_OTHER = ("slope_rate", "_decay")


def saved(model: PreTrainedModel, directory: Path) -> None:
    """Save a model under `directory` in "bfloat16" and, with the same values, in "float32".

    Every saved buffer of floating point is random (each value times a random factor), and so is
    every parameter that is all zeros.

    Args:
        model: it is changed.
        directory: an empty one.
    """
    generator = torch.Generator().manual_seed(1)
    state = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in state and buffer.is_floating_point() and not name.endswith(_OF_EACH_OTHER):
            factor = torch.rand(buffer.shape, generator=generator) + 0.5
            buffer.copy_(buffer * factor if buffer.any() else factor)  # zeros of a mask stay
    for parameter in model.parameters():
        if parameter.is_floating_point() and not parameter.any():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.to(torch.bfloat16).save_pretrained(directory / "bfloat16")
    model.to(torch.float32).save_pretrained(directory / "float32")


def loaded(kind: Any, directory: Path) -> PreTrainedModel:
    """The saved model in float32, from its bfloat16 files."""
    path = directory / "bfloat16"
    return kind.from_pretrained(path, dtype=torch.float32).eval().requires_grad_(False)
