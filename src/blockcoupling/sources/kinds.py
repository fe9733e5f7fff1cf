"""What kind of model a configuration describes, where it is not one that is measured by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockcoupling.sources.local import ENCODER_DECODER, not_causal

# In order: a kind is that of the first of transformers' tables of model types that has it.
_KINDS = {
    ENCODER_DECODER: ("SEQ_TO_SEQ_CAUSAL_LM",),
    "a multimodal model": ("IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "VISION_2_SEQ"),
    "a speech model": (
        "SPEECH_SEQ_2_SEQ",
        "CTC",
        "AUDIO_CLASSIFICATION",
        "AUDIO_XVECTOR",
        "TEXT_TO_WAVEFORM",
        "TEXT_TO_SPECTROGRAM",
        "AUDIO_TOKENIZATION",
    ),
    "a model of images and texts side by side": ("ZERO_SHOT_IMAGE_CLASSIFICATION",),
    "a vision model": (
        "IMAGE_CLASSIFICATION",
        "MASKED_IMAGE_MODELING",
        "IMAGE",
        "OBJECT_DETECTION",
        "ZERO_SHOT_OBJECT_DETECTION",
        "SEMANTIC_SEGMENTATION",
        "UNIVERSAL_SEGMENTATION",
        "MASK_GENERATION",
        "DEPTH_ESTIMATION",
        "VIDEO_CLASSIFICATION",
        "IMAGE_TO_IMAGE",
        "KEYPOINT_DETECTION",
    ),
    "a text encoder": ("MASKED_LM", "TEXT_ENCODING"),
    "a model of time series": ("TIME_SERIES_PREDICTION",),
}


def why_not_causal(where: str, config: Mapping[str, Any]) -> str | None:
    """Why the model of a configuration cannot be loaded as a causal language model; None if it can.

    Args:
        where: What to call the model in the sentence.
        config: The mapping in its config.json. One with Python code of its own is not judged.
    """
    from transformers import __version__
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return f"{where}: its config.json names no model_type, the kind of model it is"
    if config.get("is_encoder_decoder") is True:
        return not_causal(where, model_type, ENCODER_DECODER)
    if "auto_map" in config or model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return None
    if model_type not in CONFIG_MAPPING_NAMES:
        return (
            f"{where}: transformers {__version__} does not know its model_type, {model_type}, and "
            "no Python code comes with it; take a version of transformers that does, or correct "
            "its config.json"
        )
    for kind, tables in _KINDS.items():
        for table in tables:
            names = getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES", {})
            if model_type in names:
                return not_causal(where, model_type, kind)
    return not_causal(where, model_type, "no language model")
