"""What a Hugging Face directory tells about its model without loading it (no torch needed)."""

import json
import math
from pathlib import Path
from typing import Any

from blockcoupling.errors import UserError
from blockcoupling.transformer.weight_files import (
    BLOCKS,
    NESTED,
    stored_tensors,
    weight_files,
    weight_problems,
)

# The names that families of models have given to the same fact; most use the first.
_DIMENSION = ("hidden_size", "n_embd", "d_model", "n_embed", "dim")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_TOKENIZER = (
    "tokenizer.json",
    "*.model",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
    "tokeniz*.py",
)


def read_config(directory: Path | str) -> dict[str, Any]:
    """The directory's `config.json`; the language model's part of it where it has several."""
    config: dict[str, Any] = json.loads(
        (Path(directory) / "config.json").read_text(encoding="utf-8")
    )
    nested = [config[key] for key in NESTED if isinstance(config.get(key), dict)]
    return config | nested[0] if nested else config


def checkpoint_facts(directory: Path | str) -> dict[str, Any]:
    """Architecture, model_type, blocks, dimension, context, vocabulary; None where not told."""
    config = read_config(directory)

    def first(names: tuple[str, ...]) -> int | None:
        return next((config[name] for name in names if isinstance(config.get(name), int)), None)

    return {
        "architecture": (config.get("architectures") or [None])[0],
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


def has_tokenizer(directory: Path | str) -> bool:
    """Whether a tokenizer's own files are there; transformers makes up an empty one if not."""
    return any(any(Path(directory).glob(pattern)) for pattern in _TOKENIZER)


def checkpoint_problems(
    directory: Path | str, allow_pickle: bool = False, weights: bool = True
) -> list[str]:
    """Everything that keeps a directory from being measured, as far as its files tell.

    Args:
        directory: Where the model lies; of its weights, index and headers are read.
        allow_pickle: Whether `.bin` files will do.
        weights: Whether there must be any (weights drawn anew need none).
    """
    directory = Path(directory)
    if not directory.is_dir():
        what = "is a file, not a directory" if directory.exists() else "is no directory"
        return [f"{directory} {what} (seen from {Path.cwd()})"]
    found = []
    try:
        facts = checkpoint_facts(directory)
        stored = read_config(directory)
    except FileNotFoundError:
        if (directory / "adapter_config.json").exists():
            return weight_problems(directory)
        return [f"{directory} has no config.json: it is not a Hugging Face model directory"]
    except OSError as error:
        return [f"{directory}/config.json cannot be read: {error.strerror}"]
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        return [f"{directory}/config.json is not a model's configuration: {error}"]
    if not isinstance(stored.get("model_type"), str):
        found.append(f"{directory}/config.json names no model_type, the kind of model it is")
    if stored.get("is_encoder_decoder") is True:
        found.append(not_causal(str(directory), str(stored.get("model_type")), ENCODER_DECODER))
    if facts["blocks"] is not None and facts["blocks"] < 2:
        found.append(
            f"{directory} has {facts['blocks']} block: coupling is between blocks, and needs two"
        )
    found += _weights_missing(directory, allow_pickle) if weights else []
    found += _broken_tokenizer(directory)
    return found


ENCODER_DECODER = "an encoder-decoder"


def not_causal(where: str, model_type: str, kind: str) -> str:
    """The sentence for a model of another kind than those that are measured by name."""
    return (
        f"{where} is {kind} (model_type {model_type}), and a causal language model is measured: "
        "give one whose class in transformers ends in ForCausalLM or LMHeadModel"
    )


def _weights_missing(directory: Path, allow_pickle: bool) -> list[str]:
    if problems := weight_problems(directory):
        return problems
    if weight_files(directory):
        return []
    try:
        pickles = weight_files(directory, ".bin")
    except UserError as error:
        return [str(error)]
    if pickles and not allow_pickle:
        return [
            f"{directory} has its weights in {pickles[0].name}, a pickle, which can run code "
            "when loaded; convert them to safetensors, or set allow_pickle: true if you trust "
            "them"
        ]
    if pickles:
        return [f"{file} is not there; get it again" for file in pickles if not file.is_file()]
    shards = sorted(directory.glob("model-*.safetensors"))
    index = ", the index of its shards" if shards else ""
    name = "model.safetensors.index.json" if shards else "model.safetensors"
    return [f"{directory} has no {name}{index or ', the weights'}"]


def _broken_tokenizer(directory: Path) -> list[str]:
    file = directory / "tokenizer.json"
    if not file.exists():
        return []
    try:
        whole = isinstance(json.loads(file.read_text(encoding="utf-8"))["model"], dict)
    except OSError as error:
        return [f"{file} cannot be read: {error.strerror}"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"{file} is not a tokenizer ({type(error).__name__}: {error}); get it again"]
    return [] if whole else [f"{file} is not a tokenizer; get it again"]
