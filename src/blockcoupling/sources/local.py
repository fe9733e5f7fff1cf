"""What a Hugging Face directory tells about its model without loading it (no torch needed)."""

import json
import struct
from pathlib import Path
from typing import Any

# The names that families of models have given to the same fact; most use the first.
_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
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
_NESTED = ("text_config", "llm_config", "language_config")


def read_config(directory: Path | str) -> dict[str, Any]:
    """The directory's `config.json`; the language model's part of it where it has several."""
    config: dict[str, Any] = json.loads(
        (Path(directory) / "config.json").read_text(encoding="utf-8")
    )
    nested = [config[key] for key in _NESTED if isinstance(config.get(key), dict)]
    return config | nested[0] if nested else config


def checkpoint_facts(directory: Path | str) -> dict[str, Any]:
    """Architecture, model_type, blocks, dimension, context, vocabulary; None where not told."""
    config = read_config(directory)

    def first(names: tuple[str, ...]) -> int | None:
        return next((config[name] for name in names if isinstance(config.get(name), int)), None)

    return {
        "architecture": (config.get("architectures") or [None])[0],
        "model_type": config.get("model_type"),
        "blocks": first(_BLOCKS),
        "dimension": first(_DIMENSION),
        "context": first(_CONTEXT),
        "vocabulary": first(("vocab_size",)),
    }


def weight_files(directory: Path | str, suffix: str = ".safetensors") -> list[Path]:
    """The weight files that transformers would read: `model*` or `pytorch_model*`."""
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    return sorted(Path(directory).glob(f"{stem}*{suffix}"))


def count_parameters(directory: Path | str) -> int:
    """Number of values in the safetensors files, read from their headers.

    A tied matrix is stored, and counted, once. A file may also hold buffers, which are not
    parameters: exact for what this package saves, an upper bound otherwise.
    """
    total = 0
    for file in weight_files(directory):
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for size in tensor["shape"]:
                    count *= size
                total += count
    return total


def has_tokenizer(directory: Path | str) -> bool:
    """Whether a tokenizer's own files are there; transformers makes up an empty one if not."""
    return any(any(Path(directory).glob(pattern)) for pattern in _TOKENIZER)


def checkpoint_problems(directory: Path | str, allow_pickle: bool = False) -> list[str]:
    """Everything that keeps a directory from being measured, as far as its files tell."""
    directory = Path(directory)
    if not directory.is_dir():
        return [f"there is no directory {directory} (seen from {Path.cwd()})"]
    found = []
    try:
        facts = checkpoint_facts(directory)
    except FileNotFoundError:
        return [f"{directory} has no config.json: it is not a Hugging Face model directory"]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return [f"{directory}/config.json cannot be read: {error}"]
    if facts["blocks"] is not None and facts["blocks"] < 2:
        found.append(
            f"{directory} has {facts['blocks']} block: coupling is between blocks, and needs two"
        )
    if not weight_files(directory):
        pickles = weight_files(directory, ".bin")
        if not pickles:
            found.append(f"{directory} has no model*.safetensors, the weights")
        elif not allow_pickle:
            found.append(
                f"{directory} has its weights in {pickles[0].name}, a pickle, which can run code "
                "when loaded; convert them to safetensors, or set allow_pickle: true if you trust "
                "them"
            )
    return found
