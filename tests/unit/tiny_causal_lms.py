"""Every causal language model that transformers knows, tiny.

A configuration is made by shrinking every number whose name says how large something is; what a
class also needs is in one table.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

KINDS = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY, LAYERS, WIDTH, HEADS = 211, 4, 32, 4


def _all(value: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


SIZES: dict[str, Any] = {
    **_all(
        WIDTH,
        "hidden_size d_model n_embd word_embed_proj_dim embedding_size dim_model emb_dim "
        "pronunciation_embed_dim shape_embed_dim out_hidden_size projection_dim hidden_size_global",
    ),
    **_all(
        48,
        "intermediate_size ffn_dim d_ff decoder_ffn_dim encoder_ffn_dim dim_ff ffn_hidden_size "
        "n_inner dff d_inner dense_intermediate_size",
    ),
    **_all(
        LAYERS,
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers "
        "num_decoder_layers num_blocks depth",
    ),
    **_all(
        HEADS,
        "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads "
        "encoder_attention_heads index_n_heads",
    ),
    **_all(2, "num_key_value_heads num_kv_heads"),
    **_all(VOCABULARY, "vocab_size vocab_size_per_layer_input"),
    **_all(8, "head_dim v_head_dim qk_nope_head_dim attention_head_dim dim_head global_head_dim"),
    **_all(8, "index_head_dim hidden_size_per_layer_input laurel_rank router_hidden_size"),
    **_all(4, "qk_rope_head_dim rotary_dim"),
    **_all(16, "q_lora_rank kv_lora_rank o_lora_rank"),
    **_all(64, "max_position_embeddings n_positions max_seq_len"),
    **_all(4, "num_experts num_local_experts n_routed_experts moe_num_experts"),
    **_all(2, "num_experts_per_tok moe_top_k moe_k top_k_experts moe_topk zero_expert_num"),
    **_all(1, "n_group topk_group n_shared_experts"),
    **_all(
        24,
        "moe_intermediate_size expert_ffn_size shared_expert_intermediate_size "
        "moe_shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size "
        "shared_experts_intermediate_size",
    ),
    # Of layers with a state.
    **_all(
        8, "mamba_n_heads mamba_num_heads mamba_d_state ssm_state_size state_size n_mamba_heads"
    ),
    **_all(8, "linear_num_value_heads linear_key_head_dim linear_value_head_dim mamba_head_dim"),
    **_all(4, "linear_num_key_heads mamba_dt_rank time_step_rank"),
    **_all(16, "mamba_chunk_size chunk_size"),
    "mamba_d_ssm": 64,
    **_all(1, "bos_token_id"),
    **_all(2, "eos_token_id"),
    **_all(0, "pad_token_id"),
    **_all(0.15, "initializer_range init_std"),
}
# Latent attention: every query has a key of its own, the turned part of a key its own width.
LATENT = {"head_dim": 4, "num_key_value_heads": 4}
GROUPED = {"head_dim": 8, "num_key_value_heads": 2}
INDEXED = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}
EXTRAS: dict[str, dict[str, Any]] = {
    **_all(
        LATENT,
        "axk1 axk2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash minicpm3 youtu",
    ),
    **_all(GROUPED, "ministral hunyuan_v1_dense hunyuan_v1_moe nemotron"),
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "cpmant": {"prompt_length": 4, "prompt_types": 4, "segment_types": 4},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}},
    "deepseek_v2": LATENT | {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": LATENT | {"mlp_layer_types": ["dense", "sparse"] * 2},
    "gemma3n_text": {
        "intermediate_size": 48,
        "num_kv_shared_layers": 0,
        "layer_types": ["full_attention"] * 4,
    },
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 4},
    "kimi_linear": {
        **LATENT,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "qwen4_exp": {"text_config": INDEXED},
    "qwen4_exp_text": INDEXED,
    "reformer": {
        "is_decoder": True,
        "axial_pos_embds": False,
        "attn_layers": ["local", "local"] * 2,
        "num_hidden_layers": 4,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["mamba", "hybrid"] * 2},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}


# What stays as large as it is, or is not built from its configuration alone.
_OF_A_TASK = "transformers makes its causal model from another configuration than the one listed"
NOT_BUILT: dict[str, str] = {
    "dots3_note": "heads and their widths are set layer by layer; at its own it is large",
    "dots3_note_text": "heads and their widths are set layer by layer; at its own it is large",
    "gemma3n": "its vision tower needs timm",
    "gemma4_assistant": "it shares its keys and values with another model",
    "gemma4_unified_assistant": "it shares its keys and values with another model",
    "musicgen": _OF_A_TASK,
    "musicgen_melody": _OF_A_TASK,
}
MOST_WEIGHTS = 10_000_000


def tiny(kind: str, **settings: Any) -> PreTrainedModel:
    """A random model of a kind (`model_type`), in evaluation mode, float32.

    Args:
        kind: which.
        settings: of its configuration, besides.
    """
    torch.manual_seed(0)
    config = shrunk(CONFIG_MAPPING[kind], EXTRAS.get(kind, {}) | settings)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def shrunk(
    config_class: type[PretrainedConfig], extras: dict[str, Any], sizes: dict[str, Any] = SIZES
) -> PretrainedConfig:
    """A configuration with small numbers wherever it has a number of such a name."""
    default = config_class()
    chosen: dict[str, Any] = {}
    for name in _settings(config_class) & set(sizes):
        value = _default(config_class, default, name)
        if isinstance(value, int | float) or value == "auto":
            chosen[name] = sizes[name]
    for name in config_class.sub_configs:
        value = getattr(default, name, None)
        if isinstance(value, PretrainedConfig):
            chosen[name] = shrunk(type(value), extras.get(name, {}), sizes).to_dict()
    own = {name: value for name, value in extras.items() if name not in config_class.sub_configs}
    return config_class(**chosen | own)


def _default(config_class: type, default: PretrainedConfig, name: str) -> Any:
    """What a configuration has by default; None where that differs from layer to layer."""
    value = vars(default).get(name, getattr(config_class, name, None))
    return None if isinstance(value, property) else value


def _settings(config_class: type[PretrainedConfig]) -> set[str]:
    names = set(config_class.attribute_map)
    for kind in config_class.__mro__:
        names |= set(vars(kind).get("__annotations__", {}))
        if "__init__" in vars(kind):
            names |= set(inspect.signature(kind.__init__).parameters)
    return names
