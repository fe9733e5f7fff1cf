"""Weights rounded by bitsandbytes, and what makes sure that they come back as numbers."""

from __future__ import annotations

from typing import Any


def refuse_broken_dequantization(model: Any) -> None:
    """Stop where bitsandbytes would return wrong weights without a word.

    Its 4-bit blocks run over the flattened matrix, but its CPU kernel begins a new one with every
    row: the two agree only where a row holds whole blocks (seen in 0.50.2: errors of 20 to 50 %
    where 9 % are due).
    """
    import bitsandbytes

    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit) and module.weight.device.type == "cpu":
            state = module.weight.quant_state
            if state.shape[-1] % state.blocksize:
                raise ValueError(
                    f"{name} has rows of {state.shape[-1]}, not a multiple of {state.blocksize}, "
                    "which bitsandbytes dequantizes wrongly on a CPU; use int8, or a GPU"
                )


def rounding(kind: str) -> Any:
    """How transformers has weights rounded on loading: nf4, nf4-double or int8."""
    import accelerate  # noqa: F401 (transformers needs both, and says so at length)
    import bitsandbytes  # noqa: F401
    import torch
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=kind == "nf4-double",
        bnb_4bit_compute_dtype=torch.float32,
    )
