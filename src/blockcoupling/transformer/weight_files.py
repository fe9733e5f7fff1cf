"""The files of a directory that hold a model's weights, and their headers (without torch).

Loading, streaming and counting follow one rule, that of transformers: the file that
`transformers_weights` in config.json names, else model.safetensors, else the shards of
model.safetensors.index.json. Other files are not read.

The format: eight bytes with the length of the header, the header (JSON: data type, shape and
position of every tensor), then the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from blockcoupling.errors import UserError

BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Names of the number of blocks in configurations; most families use the first."""
NESTED = ("text_config", "llm_config", "language_config")
"""Keys of the language model's configuration in that of a model with several parts."""
VISION = "vision_config"
"""Key of the configuration of its part for images."""

_AGAIN = "download or copy it again"
_POINTER = b"version https://git-lfs"
_LONGEST_HEADER = 100_000_000  # what the safetensors library accepts
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    "F4": 4,
}
# Ends of the names of a weight's scales, after the name of the weight.
_SCALES = ("_scale", "_scale_inv", "_scales", ".absmax", ".quant_map")
# Prefixes that wrappers of a model in training add to every name.
_WRAPPERS = ("module", "_orig_mod", "base_model", "_fsdp_wrapped_module", "_forward_module")
# Outermost modules in the names of transformers' language models.
_OUTERMOST = ("model", "transformer", "gpt_neox", "backbone", "lm_head", "embed_out")


@dataclass(frozen=True)
class StoredTensor:
    """The file, data type and shape of a stored tensor."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def weight_files(directory: Path | str, suffix: str = ".safetensors") -> list[Path]:
    """The files that hold the weights; shards that an index names may be missing.

    Args:
        directory: a model's directory.
        suffix: ".safetensors", or ".bin" for pickles.

    Raises:
        UserError: the index of shards cannot be read, or names files outside the directory.
    """
    directory = Path(directory)
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    named = [f"{stem}{suffix}", f"{stem}{suffix}.index.json"]
    explicit = _config(directory).get("transformers_weights")
    if suffix == ".safetensors" and isinstance(explicit, str):
        named = [_inside(explicit, directory / "config.json")]
    for name in named:
        path = directory / name
        if not (path.exists() or path.is_symlink()):
            continue
        if name.endswith(".index.json"):
            return [directory / shard for shard in sorted(set(_index(path).values()))]
        return [path]
    return []


def stored_tensors(directory: Path | str) -> dict[str, StoredTensor]:
    """Every tensor in the safetensors files of a directory, by its name.

    Raises:
        UserError: lists all `weight_problems`.
    """
    tensors, problems = _examined(Path(directory))
    if problems:
        raise UserError("\n".join(problems))
    return tensors


def weight_problems(directory: Path | str) -> list[str]:
    """Why the safetensors files of a directory cannot be read, one message each.

    Only the index and the headers are read. A directory without such files has no problems.
    """
    return _examined(Path(directory))[1]


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, from its header.

    Raises:
        UserError: it cannot be read, is not a safetensors file, or is incomplete.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(len(_POINTER))
            length = int.from_bytes(start[:8], "little")
            readable = len(start) >= 8 and length <= min(size - 8, _LONGEST_HEADER)
            stream.seek(8)
            text = stream.read(length) if readable else b""
    except IsADirectoryError as error:
        raise UserError(f"{file} is a directory instead of a file of weights") from error
    except FileNotFoundError as error:
        link = " (a dangling link)" if file.is_symlink() else ""
        raise UserError(f"{file} is missing{link}; {_AGAIN}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    if size == 0:
        raise UserError(f"{file} is empty; {_AGAIN}")
    if start.startswith(_POINTER):
        raise UserError(
            f"{file} is a Git LFS pointer, not the weights; run `git lfs pull` in the directory "
            "it came from"
        )
    try:
        header = json.loads(text, object_pairs_hook=_once)
        about = {k: v for k, v in header.items() if k != "__metadata__"}
        tensors = {
            name: StoredTensor(file, entry["dtype"], tuple(entry["shape"]))
            for name, entry in about.items()
        }
        places = sorted(tuple(entry["data_offsets"]) for entry in about.values())
        sizes = sorted(
            (*entry["data_offsets"], _bytes(tensors[name])) for name, entry in about.items()
        )
        end = places[-1][1] if places else 0
        gaps = [a for a, b in zip([0, *(b for _, b in places)], places, strict=False) if a != b[0]]
        wrong = [1 for begin, stop, expected in sizes if stop - begin != expected]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        why = str(error) if text else "it does not begin with a header"
        raise UserError(
            f"{file} is not a complete safetensors file ({why}; {size} bytes); {_AGAIN}"
        ) from error
    if unknown := sorted({t.dtype for t in tensors.values()} - set(_BITS)):
        raise UserError(
            f"{file} has weights of type {', '.join(unknown)}, which torch does not know"
        )
    if size != 8 + length + end:
        raise UserError(
            f"{file} has {size} bytes, but its header describes {8 + length + end}: it is "
            f"incomplete; {_AGAIN}"
        )
    if gaps or wrong:
        raise UserError(f"the header of {file} contradicts itself; {_AGAIN}")
    return tensors


def under_another_name(names: Iterable[str], wanted: str) -> str | None:
    """The prefix of `wanted` in the one stored name that ends in it; None without such a name."""
    found = {name.removesuffix(wanted) for name in names if name.endswith(f".{wanted}")}
    return found.pop() if len(found) == 1 else None


def _examined(directory: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of all files, and the problems of the files and names."""
    problems: list[str] = []
    if (directory / "adapter_config.json").exists():
        problems.append(
            f"{directory} holds an adapter (adapter_config.json), which would not be measured. "
            "Merge it (peft's merge_and_unload, then save_pretrained into another directory), or "
            "move its files away to measure the model without it."
        )
    try:
        files = weight_files(directory)
        problems += _second_set(directory, files)
    except UserError as error:
        return {}, [*problems, str(error)]
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        try:
            found = read_header(file)
        except UserError as error:
            problems.append(str(error))
            continue
        if twice := sorted(tensors.keys() & found.keys()):
            problems.append(
                f"{len(twice)} tensors, such as {twice[0]}, are both in "
                f"{tensors[twice[0]].file} and in {file.name}; remove one of the files"
            )
        tensors |= found
    if not problems:
        problems += _missing(directory, files, tensors)
        problems += _names(directory, tensors)
        problems += _scaled(directory, tensors)
    return tensors, problems


def _second_set(directory: Path, files: list[Path]) -> list[str]:
    """The problem that another set of weights is next to the one that is read."""
    index = directory / "model.safetensors.index.json"
    if "transformers_weights" in _config(directory) or not files or not index.is_file():
        return []
    others = {directory / shard for shard in _index(index).values()} - set(files)
    if not any(other.exists() for other in others):
        return []
    return [
        f"{directory} holds two sets of weights: {files[0].name}, and the shards of {index.name} "
        f"({min(other.name for other in others)}, …); move away the set that is not meant"
    ]


def _missing(directory: Path, files: list[Path], tensors: Mapping[str, StoredTensor]) -> list[str]:
    index = directory / "model.safetensors.index.json"
    if len(files) < 2 or not index.is_file():
        return []
    absent = sorted(set(_index(index)) - set(tensors))
    if not absent:
        return []
    return [f"{index} lists {len(absent)} tensors that no file holds, such as {absent[0]}"]


def _names(directory: Path, names: Iterable[str]) -> list[str]:
    """Problems seen in the names: a wrapper around the model, more blocks than configured."""
    config = _config(directory)
    names = list(names)
    nested: dict[str, Any] = next(
        (config[key] for key in NESTED if isinstance(config.get(key), dict)), {}
    )
    if is_text_tower(nested):
        return []  # two stacks of blocks, one for images
    if "auto_map" not in config and not nested and (prefix := _wrapper(names)):
        return [
            f"all weights in {directory} have the prefix {prefix!r} of a wrapper around the model; "
            "save the model inside it with save_pretrained, or remove the prefix from the names"
        ]
    config = config | nested
    blocks = next((config[key] for key in BLOCKS if isinstance(config.get(key), int)), None)
    if blocks is None:
        return []
    # Layers that predict further tokens follow the blocks and are not counted.
    further = sum(
        value
        for key, value in config.items()
        if isinstance(value, int) and ("nextn" in key or "mtp" in key)
    )
    stacks = {stem: max(indices) + 1 for stem, indices in _stacks(names).items()}
    if stacks and blocks not in stacks.values() and max(stacks.values()) > blocks + further:
        stem = max(stacks, key=lambda stem: stacks[stem])
        return [
            f"the files in {directory} hold {stacks[stem]} blocks ({stem}), but its config.json "
            f"says {blocks}: correct num_hidden_layers, or save the model again"
        ]
    return []


def _scaled(directory: Path, tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Stored numbers that are not the weights: of low precision, or with scales of their own.

    Where config.json says how they are quantized, the refusal is that of the configuration.
    """
    if _config(directory).get("quantization_config"):
        return []
    found = [
        name
        for name, tensor in tensors.items()
        if tensor.dtype.startswith(("F8", "F4"))
        or (tensor.dtype in ("I8", "U8") and name.endswith(".weight"))
        or any(name.endswith(end) and name.removesuffix(end) in tensors for end in _SCALES)
        or (name.endswith(".SCB") and f"{name.removesuffix('SCB')}weight" in tensors)
    ]
    if not found:
        return []
    return [
        f"the files in {directory} hold {len(found)} tensors of low precision or scales, such as "
        f"{found[0]}, and config.json has no quantization_config: they are not the weights. Use "
        "the unquantized weights."
    ]


def is_text_tower(config: Mapping[str, Any]) -> bool:
    """Whether a part's configuration is that of a text encoder, not of a language model."""
    return str(config.get("model_type", "")).endswith("_text_model")


def _stacks(names: Iterable[str]) -> dict[str, set[int]]:
    """The outermost numbered lists of modules, with the numbers that occur."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for name in names:
        if match := re.match(r"(.*?)\.(\d+)\.", name):
            found[match[1]].add(int(match[2]))
    return found


def _wrapper(names: list[str]) -> str | None:
    """The prefix of all names that does not belong to a model; None without one."""
    firsts = {name.split(".")[0] for name in names}
    if len(firsts) != 1:
        return None
    (first,) = firsts
    seconds = {name.split(".")[1] for name in names if "." in name}
    if first in _WRAPPERS or (first not in _OUTERMOST and seconds & set(_OUTERMOST)):
        inner = _wrapper([name.removeprefix(f"{first}.") for name in names])
        return f"{first}.{inner or ''}"
    return None


def _config(directory: Path) -> dict[str, Any]:
    """The content of the directory's config.json; empty if it cannot be read."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # reported when the model is loaded
    return config if isinstance(config, dict) else {}


def _index(path: Path) -> dict[str, str]:
    """File of every tensor, from an index of shards."""
    try:
        where = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): _inside(file, path) for name, file in where.items()}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not an index of weights ({type(error).__name__}: {error}); {_AGAIN}"
        ) from error


def _inside(file: str, origin: Path) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{origin} names a file outside its directory, {file}, which is not read")
    return str(path)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in its header")
    return found


def _bytes(tensor: StoredTensor) -> int:
    return -(-math.prod(tensor.shape) * _BITS.get(tensor.dtype, 0) // 8)
