"""The class that a model is loaded as, and which of its parts is measured, by what it takes.

No architecture is named: the model is built without weights, and its forward shows what it takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from blockcoupling.config.choices import Modality
from blockcoupling.errors import UserError
from blockcoupling.sources.local import not_an_encoder
from blockcoupling.transformer.images import IDS, PIXELS, image_parts, named_inputs

if TYPE_CHECKING:
    from torch import nn

_AUTO, _CAUSAL = "AutoModel", "AutoModelForCausalLM"


@dataclass(frozen=True)
class Kind:
    """A model's input, and the part of it that is measured.

    Attributes:
        modality: text or image.
        causal: it predicts the next token from those before it, according to its configuration.
        part: name of the submodule that is measured; empty: the whole model.
    """

    modality: Modality
    causal: bool
    part: str = ""


def class_of(config: Any, architecture: str | None, causal: bool, trust: bool) -> Any:
    """The class of transformers, or of a trusted directory, that a model is loaded as.

    Args:
        config: its configuration (`transformers.AutoConfig`).
        architecture: the class that it was saved from.
        causal: load it as a language model.
        trust: whether the directory's own code may be run.
    """
    import transformers

    own = _own(config, trust)
    if causal and (_CAUSAL in own or config.model_type in _listed("CAUSAL_LM")):
        return transformers.AutoModelForCausalLM
    if automatic := sorted(name for name in own if name.startswith(_AUTO)):
        return getattr(transformers, automatic[0])
    if config.model_type in _listed("IMAGE_TEXT_TO_TEXT"):
        return transformers.AutoModelForImageTextToText
    home = type(config).__module__
    places = [transformers]
    if home.startswith("transformers.models."):
        places.append(import_module(home.replace(".configuration_", ".modeling_")))
    for place in places:
        named = getattr(place, str(architecture), None)
        if isinstance(named, type) and getattr(named, "config_class", None) is type(config):
            # With the head that was saved, if any: else its weights were said to be missing.
            return named
    return transformers.AutoModel


def predicts(config: Any, trust: bool) -> bool | None:
    """Whether a configuration is that of a causal language model; None: its model has to show it.

    Args:
        config: the configuration.
        trust: whether the directory's own code may be run.
    """
    if own := _own(config, trust):
        return True if _CAUSAL in own else None
    if config.model_type not in _listed("CAUSAL_LM"):
        return None
    return config.model_type not in _listed("MASKED_LM") or config.is_decoder is True


def kind_of(where: str, model: nn.Module, images: bool = False) -> Kind:
    """The kind of a model that is not a language model, or that is to be measured at images.

    Args:
        where: What to call it in a sentence.
        model: It, perhaps without weights.
        images: Prefer its part for images to its language model.

    Raises:
        UserError: It takes neither texts nor images alone, and no part of it takes images alone.
    """
    name, taken = type(model).__name__, named_inputs(model)
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    decodes = "decoder_input_ids" in _parameters(model)
    if decodes and PIXELS not in taken:
        raise UserError(not_an_encoder(where, str(model_type)))
    if model_type in _listed("VIDEO_CLASSIFICATION"):
        raise UserError(
            f"{where} is a video model ({name}); only models of texts or single images can be "
            "measured"
        )
    if taken == {PIXELS}:
        _refuse_more(where, name, _required(model) - {PIXELS})
        return Kind("image", causal=False)
    generates = PIXELS in taken and not decodes and getattr(model, "can_generate", bool)()
    more = _required(model) - {IDS}
    if taken == {IDS}:
        _refuse_more(where, name, more)
    if taken == {IDS} or (generates and not images and not more):
        return Kind("text", causal=generates)
    towers = image_parts(model)
    if not towers and IDS in taken and not images and not more:
        return Kind("text", causal=False)  # images may be added
    if len(towers) > 1:
        raise UserError(
            f"{where} has {len(towers)} parts for images ({', '.join(towers)}); load it and pass "
            "the one to measure to bc.measure(model.PART, images=pixel_values)"
        )
    if not towers:
        takes = ", ".join([n for n in _parameters(model) if "args" not in n][:3])
        raise UserError(
            f"{where} is a {name}, which takes {takes}: neither it nor a part of it takes token "
            "ids or pixel values alone, as models that can be measured do"
        )
    ((part, tower),) = towers.items()
    _refuse_more(where, f"{name}.{part}", _required(tower) - {PIXELS})
    return Kind("image", causal=False, part=part)


def _own(config: Any, trust: bool) -> Mapping[str, Any]:
    """The classes that come with a trusted directory, by the name of transformers' class."""
    own = getattr(config, "auto_map", None) if trust else None
    return own if isinstance(own, dict) else {}


def _listed(task: str) -> Mapping[str, Any]:
    """The kinds of models that transformers has for a task."""
    from transformers.models.auto import modeling_auto

    return getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES")


def _refuse_more(where: str, name: str, needed: set[str]) -> None:
    if needed:
        raise UserError(
            f"{where}: {name} also needs {', '.join(sorted(needed))}; a model that needs more than "
            "token ids or pixel values cannot be measured"
        )


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model.forward).parameters


def _required(model: nn.Module) -> set[str]:
    """Names of the arguments that a model's forward cannot do without."""
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name
        for name, parameter in _parameters(model).items()
        if parameter.default is parameter.empty and parameter.kind not in open_ended
    }
