"""The kind of model that a configuration describes, and whether it can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockcoupling.config.choices import Modality
from blockcoupling.errors import UserError
from blockcoupling.sources.local import ENCODER_DECODER, not_measured

_ENCODER = "a text encoder"
_VISION = "a vision model"
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
    "a video model": ("VIDEO_CLASSIFICATION",),
    "a model of images and texts side by side": ("ZERO_SHOT_IMAGE_CLASSIFICATION",),
    _VISION: (
        "IMAGE_CLASSIFICATION",
        "MASKED_IMAGE_MODELING",
        "IMAGE",
        "OBJECT_DETECTION",
        "ZERO_SHOT_OBJECT_DETECTION",
        "SEMANTIC_SEGMENTATION",
        "UNIVERSAL_SEGMENTATION",
        "MASK_GENERATION",
        "DEPTH_ESTIMATION",
        "IMAGE_TO_IMAGE",
        "KEYPOINT_DETECTION",
    ),
    _ENCODER: ("MASKED_LM", "TEXT_ENCODING"),
    "a model of time series": ("TIME_SERIES_PREDICTION",),
}


@dataclass(frozen=True)
class Kind:
    """A model's input, and whether it is causal, if its configuration shows that.

    Attributes:
        modality: text or image.
        causal: it predicts the next token from those before it.
    """

    modality: Modality
    causal: bool


def kind_of(where: str, config: Mapping[str, Any]) -> Kind:
    """The kind of model that a configuration describes.

    Args:
        where: What to call the model in a sentence.
        config: The mapping in its config.json (`local.read_config`). One with Python code of its
            own is taken for a language model.

    Raises:
        UserError: It is of a kind that is not measured by name.
    """
    from transformers import __version__
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(f"{where}: its config.json names no model_type, the kind of model it is")
    if config.get("is_encoder_decoder") is True:
        raise UserError(not_measured(where, model_type, ENCODER_DECODER))
    if "auto_map" in config:
        return Kind("text", causal=True)
    if model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        masked = model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        return Kind("text", causal=not masked or config.get("is_decoder") is True)
    if model_type not in CONFIG_MAPPING_NAMES:
        raise UserError(
            f"{where}: transformers {__version__} does not know its model_type, {model_type}, and "
            "no Python code comes with it; take a version of transformers that does, or correct "
            "its config.json"
        )
    kind = next(
        (
            kind
            for kind, tables in _KINDS.items()
            for table in tables
            if model_type in getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES", {})
        ),
        "no language model",
    )
    if kind == _ENCODER:
        return Kind("text", causal=False)
    if kind == _VISION or model_type.endswith("_vision_model"):
        return Kind("image", causal=False)
    raise UserError(not_measured(where, model_type, kind))
