"""Small random models of many families that look both ways: every case in one table.

The reference is autograd through a pass of the whole model in float64, written apart from the
package (`full_jacobian.py`).
"""

from typing import Any

import torch
from architectures import COMMON, VOCABULARY, prompt
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

WIDE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
TEXT = {**WIDE, **COMMON, "max_position_embeddings": 64}
IMAGE = {**WIDE, "image_size": 12, "patch_size": 4, "num_channels": 3}
CHANNELS, SIZE = 3, 12
PATCHES = 9
LONG = 7  # tokens of a text

# name: (model type, configuration, the model's own tokens before its patches, what is special)
ENCODERS: dict[str, tuple[str, dict, str]] = {
    "bert": ("bert", TEXT, "post-norm"),
    "roberta": ("roberta", TEXT, "post-norm, positions with an offset"),
    "albert": ("albert", {**TEXT, "embedding_size": 8}, "one block, passed three times"),
    "albert_two_groups": (
        "albert",
        {**TEXT, "embedding_size": 8, "num_hidden_layers": 4, "num_hidden_groups": 2},
        "two blocks, passed twice each",
    ),
    "modernbert": (
        "modernbert",
        {**TEXT, "local_attention": 4, "cls_token_id": 1, "sep_token_id": 2},
        "rotary, gated, windows in two of three blocks, pre-norm",
    ),
    "electra": ("electra", {**TEXT, "embedding_size": 8}, "embeddings of another width"),
    "distilbert": (
        "distilbert",
        {**COMMON, "dim": 32, "hidden_dim": 40, "n_layers": 3, "n_heads": 4},
        "post-norm",
    ),
    "xlm_roberta": ("xlm-roberta", TEXT, "post-norm"),
    "eurobert": ("eurobert", {**TEXT, "num_key_value_heads": 2}, "Llama's blocks, grouped"),
    "t5_encoder": (
        "t5",
        {**COMMON, "d_model": 32, "d_ff": 40, "d_kv": 8, "num_layers": 3, "num_heads": 4},
        "relative positions that the first block hands on",
    ),
}
VISION: dict[str, tuple[str, dict, int, str]] = {
    "vit": ("vit", IMAGE, 1, "pre-norm"),
    "deit": ("deit", IMAGE, 2, "a distillation token"),
    "dinov2": ("dinov2", {**IMAGE, "mlp_ratio": 2, "drop_path_rate": 0.3}, 1, "scaled layers"),
    "dinov2_with_registers": (
        "dinov2_with_registers",
        {**IMAGE, "mlp_ratio": 2, "num_register_tokens": 3},
        4,
        "registers",
    ),
    "beit": (
        "beit",
        {**IMAGE, "use_relative_position_bias": True, "drop_path_rate": 0.3},
        1,
        "relative positions in every block",
    ),
    "clip": ("clip_vision_model", IMAGE, 1, "a norm before the blocks"),
    "siglip": ("siglip_vision_model", IMAGE, 0, "no token of its own"),
}
FAMILIES = [*ENCODERS, *VISION]


def small_encoder(family: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
    """A random model of a family, in evaluation mode, with eager attention.

    Weights are larger than a fresh initialisation's, so that attention is far from linear and a
    token left out of it shows.
    """
    model_type, settings = (ENCODERS | VISION)[family][:2]
    config = AutoConfig.for_model(model_type, **settings)
    torch.manual_seed(seed)
    if model_type == "t5":
        from transformers import T5EncoderModel

        model: PreTrainedModel = T5EncoderModel._from_config(config, attn_implementation="eager")
    else:
        model = AutoModel.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
            elif parameter.numel() > 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.to(dtype).eval().requires_grad_(False)


def hierarchy(dtype: torch.dtype = torch.float64) -> Any:
    """A small random Swin of two stages, of two and three blocks."""
    config = AutoConfig.for_model(
        "swin",
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[2, 3],
        num_heads=[2, 4],
        window_size=2,
        drop_path_rate=0.3,
    )
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return model.to(dtype).eval().requires_grad_(False)


def pixels(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    """Random pixel values, (count, channel, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, CHANNELS, size, size, generator=generator, dtype=torch.float64)


def given_to(family: str, seed: int = 0) -> Tensor:
    """What a model of a family is run on: token ids, or pixel values."""
    return prompt(LONG, seed) if family in ENCODERS else pixels(1, seed=seed)


def ids_of(text: str) -> list[int]:
    """A tokenizer for these models: the ids of a text's letters."""
    return [1 + ord(c) % (VOCABULARY - 1) for c in text]


def exact_jacobian(
    model: nn.Module, path: str, given: Tensor, block: int, token_in: int, token_out: int
) -> Tensor:
    """∂f(X)_{token_out} / ∂x_{token_in} of one block, by an ordinary pass of the whole model.

    A small change is added to the hidden state on its way into the block, and what comes out is
    differentiated with respect to it, a row at a time.

    Args:
        model: the model.
        path: of the module list that holds its blocks.
        given: token ids or pixel values.
        block: which block (0 …), counted as they are passed.
        token_in, token_out: t1 and t2.
    """
    passed: list[nn.Module] = []
    seen: dict[str, Tensor] = {}

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        passed.append(module)
        if len(passed) != block + 1:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        change = torch.zeros(hidden.shape[-1], dtype=hidden.dtype, requires_grad=True)
        place = torch.zeros(hidden.shape[1], 1, dtype=hidden.dtype)
        place[token_in] = 1
        seen["change"], hidden = change, hidden.detach() + place * change
        return (
            ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})
        )

    def leave(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if len(passed) == block + 1:
            seen["output"] = output[0] if isinstance(output, tuple) else output

    handles = []
    for module in model.get_submodule(path):  # type: ignore[union-attr]
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        model(**{"pixel_values" if given.is_floating_point() else "input_ids": given})
    finally:
        for handle in handles:
            handle.remove()
    output = seen["output"][0, token_out]
    unit = torch.eye(len(output), dtype=output.dtype)
    (jacobian,) = torch.autograd.grad(output, seen["change"], unit, is_grads_batched=True)
    return jacobian - unit if token_in == token_out else jacobian
