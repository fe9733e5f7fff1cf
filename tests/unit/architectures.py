"""Small random models of many families: every case in one table."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 61
COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
WIDE = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**WIDE, "num_key_value_heads": 2, "head_dim": 8}
N_EMBD = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

# name: (model type, configuration, what is special about it)
FAMILIES: dict[str, tuple[str, dict, str]] = {
    "gpt2": ("gpt2", N_EMBD, "learned positions"),
    "gpt_neo": (
        "gpt_neo",
        {
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_layers": 3,
            "num_heads": 4,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": 4,
        },
        "local attention, unscaled scores",
    ),
    "gpt_neox": ("gpt_neox", {**WIDE, "rotary_pct": 0.5}, "parallel residual, partial rotary"),
    "gpt_neox_serial": ("gpt_neox", {**WIDE, "use_parallel_residual": False}, "serial residual"),
    "gptj": ("gptj", {**N_EMBD, "rotary_dim": 4}, "parallel residual, one norm"),
    "llama": ("llama", WIDE, "rotary, gated"),
    "mistral": ("mistral", {**GROUPED, "sliding_window": 5}, "sliding window, grouped queries"),
    "gemma": ("gemma", GROUPED, "scaled embeddings"),
    "gemma2": (
        "gemma2",
        {**GROUPED, "sliding_window": 5, "query_pre_attn_scalar": 8},
        "norms on both sides, soft caps, every other window",
    ),
    "gemma3": (
        "gemma3_text",
        {
            **GROUPED,
            "sliding_window": 5,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "two rotary bases",
    ),
    "phi": ("phi", {**WIDE, "partial_rotary_factor": 0.5}, "parallel residual, biases"),
    "falcon_old": (
        "falcon",
        {**WIDE, "alibi": True, "new_decoder_architecture": False, "multi_query": False},
        "ALiBi, serial",
    ),
    "falcon_7b": (
        "falcon",
        {**WIDE, "multi_query": True, "parallel_attn": True, "alibi": False},
        "one key-value head, parallel residual",
    ),
    "falcon_40b": (
        "falcon",
        {**WIDE, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
        "two norms, grouped queries",
    ),
    "mpt": (
        "mpt",
        {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64},
        "ALiBi, positional cache",
    ),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 3, "n_head": 4}, "ALiBi"),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 64,
        },
        "learned positions with an offset",
    ),
    "olmo2": ("olmo2", GROUPED, "post-norm"),
    "mixtral": ("mixtral", {**GROUPED, **EXPERTS}, "mixture of experts"),
    "qwen3_moe": (
        "qwen3_moe",
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20},
        "mixture of experts, query norms",
    ),
    "gpt_oss": (
        "gpt_oss",
        {**GROUPED, **EXPERTS, "sliding_window": 5},
        "attention sinks, mixture of experts",
    ),
    "cohere": ("cohere", GROUPED, "parallel residual, shared norm"),
    "stablelm": (
        "stablelm",
        {**WIDE, "num_key_value_heads": 4, "partial_rotary_factor": 0.5},
        "partial rotary, layer norm",
    ),
    "qwen2": ("qwen2", {**WIDE, "num_key_value_heads": 2}, "biases on queries and keys"),
}


def small_model(family: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> PreTrainedModel:
    """A random model of a family, in evaluation mode, with eager attention.

    Weights are larger than a fresh initialisation's, so that attention and gates are far from
    linear and a wrong context shows.
    """
    model_type, settings, _ = FAMILIES[family]
    config = AutoConfig.for_model(model_type, **COMMON, **settings)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5.0)
    return model.to(dtype).eval().requires_grad_(False)


def prompt(length: int, seed: int = 0) -> torch.Tensor:
    """Random token ids, (1, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (1, length), generator=generator)
