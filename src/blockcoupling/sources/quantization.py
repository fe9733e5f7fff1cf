"""Weights rounded by bitsandbytes, and what makes sure that they come back as numbers."""

from __future__ import annotations

from typing import Any

from blockcoupling.errors import UserError


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


def refuse_unrounded(model: Any) -> None:
    """Stop where weights would be called rounded that bitsandbytes does not round.

    It rounds linear layers. The matrices of a mixture's experts are fused into one parameter with
    further axes, which it leaves as it is. Convolutions are never rounded.

    Args:
        model: any, with or without its weights in memory.

    Raises:
        UserError: with the number of their values.
    """
    from torch import nn

    fused = {
        name: parameter.numel()
        for module_name, module in model.named_modules()
        if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        for name, parameter in module.named_parameters(module_name, recurse=False)
        if sum(length > 1 for length in parameter.shape) >= 3
    }
    if fused:
        raise UserError(
            f"{sum(fused.values()):,} values in {len(fused)} parameters, such as "
            f"{next(iter(fused))}, would not be rounded: bitsandbytes rounds linear layers, and "
            "these are stacks of matrices (experts). Measure the model without quantization"
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
