"""Facts about the model in a Hugging Face directory, without loading it (no torch needed)."""

import json
import math
from pathlib import Path
from typing import Any

from blockcoupling.errors import UserError
from blockcoupling.transformer.weight_files import (
    BLOCKS,
    NESTED,
    VISION,
    is_text_tower,
    stored_tensors,
    weight_files,
    weight_problems,
)

# The names that families of models have given to the same fact; most use the first.
_DIMENSION = ("hidden_size", "n_embd", "d_model", "n_embed", "dim")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""What image processors are saved in; transformers prefers the first that describes one."""
_TOKENIZER = (
    "tokenizer.json",
    "*.model",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
    "tokeniz*.py",
)


def read_config(directory: Path | str) -> dict[str, Any]:
    """The directory's `config.json`; where it has several parts, with the one that is measured.

    That is the language model or, next to a text tower, the image model.

    Raises:
        UserError: as `own_config`.
    """
    config = own_config(directory)
    nested = [config[key] for key in NESTED if isinstance(config.get(key), dict)]
    if nested and is_text_tower(nested[0]):
        nested = [config[key] for key in (VISION,) if isinstance(config.get(key), dict)]
    return config | nested[0] if nested else config


def own_config(directory: Path | str) -> dict[str, Any]:
    """The directory's `config.json` as it is.

    Raises:
        UserError: there is none, or it is not a model's configuration.
    """
    file = Path(directory) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{directory} has no config.json: it is not a Hugging Face model directory"
        ) from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); get it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is not a model's configuration: it is not a JSON object")
    return config


def processor_problem(directory: Path | str) -> str | None:
    """What is wrong with the file that says how a model's images are prepared."""
    for name in PROCESSORS:
        file = Path(directory) / name
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{file} cannot be read: {error.strerror}"
        except ValueError as error:
            return f"{file} cannot be read as JSON ({error}); get it again"
        if not isinstance(settings, dict):
            return f"{file} is not the file of an image processor; download it again"
        if name == PROCESSORS[-1] or "image_processor" in settings:
            return None
    return (
        f"there is no {PROCESSORS[-1]} in {directory}, which says how its images are prepared; "
        "save the model's image processor there"
    )


def checkpoint_facts(directory: Path | str) -> dict[str, Any]:
    """Architecture, model_type, blocks, dimension, context, vocabulary; None if unknown."""
    config = read_config(directory)

    def first(names: tuple[str, ...]) -> int | None:
        return next((config[name] for name in names if isinstance(config.get(name), int)), None)

    listed = config.get("architectures")
    architectures = listed if isinstance(listed, list) else []
    return {
        "architecture": architectures[0] if architectures else None,
        "model_type": config.get("model_type"),
        "blocks": first(BLOCKS),
        "dimension": first(_DIMENSION),
        "context": first(_CONTEXT),
        "vocabulary": first(("vocab_size",)),
    }


def count_parameters(directory: Path | str) -> int:
    """Number of values in the safetensors files, read from their headers; 0 where there are none.

    A tied matrix is stored, and counted, once. A file may also hold buffers, which are not
    parameters: exact for what this package saves, an upper bound otherwise.

    Raises:
        UserError: the files cannot be read.
    """
    return sum(math.prod(tensor.shape) for tensor in stored_tensors(directory).values())


def tokenizer_problem(directory: Path | str) -> str | None:
    """What is wrong with the tokenizer's files; transformers makes up an empty one without them."""
    directory = Path(directory)
    if not any(any(directory.glob(pattern)) for pattern in _TOKENIZER):
        return f"there is no tokenizer in {directory}; set tokenizer to the directory that has it"
    file = directory / "tokenizer.json"
    if not file.exists():
        return None
    try:
        whole = isinstance(json.loads(file.read_text(encoding="utf-8"))["model"], dict)
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError) as error:
        return f"{file} is not a tokenizer ({type(error).__name__}: {error}); get it again"
    return None if whole else f"{file} is not a tokenizer; get it again"


def checkpoint_problems(
    directory: Path | str, allow_pickle: bool = False, weights: bool = True
) -> list[str]:
    """Everything in the files of a directory that prevents measuring it.

    Args:
        directory: The model's directory; index and headers of its weights are read.
        allow_pickle: Whether `.bin` files will do.
        weights: Whether there must be any (re-initialised weights need none).
    """
    directory = Path(directory)
    if not directory.is_dir():
        if directory.exists():
            return [f"{directory} is a file, and should be a model's directory"]
        return [f"there is no directory {directory} (seen from {Path.cwd()})"]
    try:
        facts, stored = checkpoint_facts(directory), read_config(directory)
    except UserError as error:
        alone = (directory / "adapter_config.json").exists()  # an adapter has no config.json
        return weight_problems(directory) if alone else [str(error)]
    found = []
    if not isinstance(stored.get("model_type"), str):
        found.append(f"{directory}/config.json names no model_type, the kind of model it is")
    # An encoder that was saved by itself may keep the configuration of both.
    alone = "Encoder" in str(facts["architecture"]).replace("EncoderDecoder", "")
    if stored.get("is_encoder_decoder") is True and not alone:
        found.append(not_an_encoder(str(directory), str(stored.get("model_type"))))
    if facts["blocks"] is not None and facts["blocks"] < 2:
        found.append(
            f"{directory} has {facts['blocks']} block: coupling is between blocks, and needs two"
        )
    return found + (_weights_missing(directory, allow_pickle) if weights else [])


def not_an_encoder(where: str, model_type: str) -> str:
    """The sentence for a model with an encoder and a decoder."""
    return (
        f"{where} is an encoder-decoder (model_type {model_type}), which has two residual streams; "
        "its encoder can be measured if it is saved by itself (such as T5EncoderModel)"
    )


def _weights_missing(directory: Path, allow_pickle: bool) -> list[str]:
    problems = weight_problems(directory)
    if problems or weight_files(directory):
        return problems
    if any(directory.glob("model-*.safetensors")):
        return [f"{directory} has no model.safetensors.index.json, the index of its shards"]
    try:
        pickles = weight_files(directory, ".bin")
    except UserError as error:
        return [str(error)]
    if not pickles:
        return [f"{directory} has no model*.safetensors, the weights"]
    if allow_pickle:
        return [f"{file} is not there; get it again" for file in pickles if not file.is_file()]
    return [
        f"{directory} has its weights in {pickles[0].name}, a pickle, which can run code when "
        "loaded; convert them to safetensors, or set allow_pickle: true if you trust them"
    ]
