"""Every text encoder and image model that transformers knows, tiny (see `tiny_causal_lms`)."""

from __future__ import annotations

from typing import Any

import torch
from tiny_causal_lms import SIZES, shrunk
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


def _listed(*tables: str) -> set[str]:
    return {
        kind
        for table in tables
        for kind in getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES")
    }


_OTHERS = _listed("CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_TEXT_TO_TEXT") - {"t5", "umt5", "mt5"}
_NAMES = modeling_auto.MODEL_MAPPING_NAMES
IMAGES = sorted(
    (_listed("IMAGE", "IMAGE_CLASSIFICATION") | {kind for kind in _NAMES if "vision" in kind})
    & set(_NAMES) - _OTHERS
)
TEXTS = sorted(
    _listed("MASKED_LM", "TEXT_ENCODING", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING")
    & set(_NAMES) - _OTHERS - set(IMAGES)
)
# The class that a kind is built as is that of the first of these tables that has it.
_TABLES = ("MASKED_LM", "TEXT_ENCODING", "IMAGE_CLASSIFICATION")

SMALL = {
    **SIZES,
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_layers", "depth"), 3),
    **dict.fromkeys(("image_size", "img_size", "input_size"), 32),
    **dict.fromkeys(("num_channels", "in_channels", "in_chans"), 3),
    **dict.fromkeys(("embed_dim", "dim"), 32),
    **dict.fromkeys(("hidden_dim", "mlp_dim"), 48),
    "patch_size": 8,
}
_WINDOWS = {"depths": [2, 2], "num_heads": [2, 4], "window_size": 2, "embed_dim": 16}
_SWIN = {**_WINDOWS, "image_size": 32, "patch_size": 4}
_PYRAMID = {
    "hidden_sizes": [16, 32],
    "depths": [2, 2],
    "num_attention_heads": [2, 4],
    "sr_ratios": [2, 1],
    "sequence_reduction_ratios": [2, 1],
    "patch_sizes": [4, 2],
    "strides": [4, 2],
    "mlp_ratios": [2, 2],
    "num_encoder_blocks": 2,
    "decoder_hidden_size": 32,
    "image_size": 32,
}
_STAGES = {"hidden_sizes": [16, 32], "depths": [2, 2], "num_stages": 2, "embedding_size": 16}
_FOUR = {"hidden_sizes": [8, 16, 16, 32], "depths": [2, 2, 2, 2]}
_PAIR = {"image_size": [32, 32], "patch_size": [8, 8]}
EXTRAS: dict[str, dict[str, Any]] = {
    "bit": {"hidden_sizes": [32, 64], "depths": [2, 2], "embedding_size": 32, "num_groups": 4},
    "convnext": _STAGES,
    "convnextv2": _STAGES,
    "cvt": {
        "embed_dim": [16, 32],
        "depth": [2, 2],
        "num_heads": [2, 2],
        "cls_token": [False, True],
        **{
            name: [value, value]
            for name, value in {
                "patch_sizes": 3,
                "patch_stride": 2,
                "patch_padding": 1,
                "mlp_ratio": 2.0,
                "attention_drop_rate": 0.0,
                "drop_rate": 0.0,
                "drop_path_rate": 0.0,
                "qkv_bias": True,
                "qkv_projection_method": "dw_bn",
                "kernel_qkv": 3,
                "padding_kv": 1,
                "stride_kv": 2,
                "padding_q": 1,
                "stride_q": 1,
            }.items()
        },
    },
    "dinov3_convnext": _FOUR,
    "donut-swin": _SWIN,
    "esm": {"vocab_size": 211, "pad_token_id": 0, "mask_token_id": 3},
    "esmc": {"num_key_value_heads": 4},
    "focalnet": {
        "embed_dim": 16,
        "depths": [2, 2],
        "hidden_sizes": [16, 32],
        "focal_levels": [1, 1],
        "focal_windows": [3, 3],
    },
    "glpn": _PYRAMID,
    "hiera": {
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [1, 2],
        "image_size": [32, 32],
        "num_query_pool": 1,
    },
    "internvl_vision": _PAIR,
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 32},
    "maskformer-swin": _SWIN,
    "mobilevitv2": {"image_size": 256},
    "neomme": {"head_dim": 16},
    "poolformer": _FOUR,
    "pvt": _PYRAMID,
    "pvt_v2": _PYRAMID,
    "qianfan_ocr_vision": _PAIR,
    "regnet": {**_STAGES, "groups_width": 8},
    "resnet": {**_STAGES, "layer_type": "basic"},
    "segformer": _PYRAMID,
    "swin": _SWIN,
    "swin2sr": {**_WINDOWS, "num_heads": [2, 2], "image_size": 32, "patch_size": 1},
    "swinv2": _SWIN,
    "yolos": {"image_size": [32, 32]},
}
MOST_WEIGHTS = 5_000_000


def tiny(kind: str) -> PreTrainedModel:
    """A random model of a kind (`model_type`), in evaluation mode, float32."""
    torch.manual_seed(0)
    named, config = _class_and_config(kind)
    return named._from_config(config).eval().requires_grad_(False)


def is_built(kind: str) -> bool:
    """Whether transformers builds a tiny model of a kind from its configuration alone."""
    try:
        named, config = _class_and_config(kind)
        with torch.device("meta"):
            model = named._from_config(config)
    except Exception:  # of any kind: it is the library's own
        return False
    return sum(parameter.numel() for parameter in model.parameters()) < MOST_WEIGHTS


def image_for(model: PreTrainedModel) -> Tensor:
    """Random pixel values, (1, 3, height, width), of the size that a model is configured for."""
    size = getattr(model.config, "image_size", None) or 32
    height, width = size if isinstance(size, list | tuple) else (size, size)
    generator = torch.Generator().manual_seed(7)
    return torch.randn(1, 3, height, width, generator=generator)


def _class_and_config(kind: str) -> tuple[Any, Any]:
    config = shrunk(CONFIG_MAPPING[kind], EXTRAS.get(kind, {}), SMALL)
    tables = [getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING") for name in _TABLES]
    tables.append(modeling_auto.MODEL_MAPPING)
    named = next(table[type(config)] for table in tables if type(config) in table)
    return (named[0] if isinstance(named, tuple) else named), config
