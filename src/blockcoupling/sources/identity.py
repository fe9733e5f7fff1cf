"""What a model is by its content: digests of weights, configuration and tokenizer (no torch).

Two models are the same where these digests are equal, wherever their files are. Names, paths and
facts decide no number and are not part of the identity.

    content_identity(study.model_spec("mine", "main"))
    # {'config': '5f0c…', 'weights': …}

A link counts as the file it leads to. Large files in the hub's cache are named after their digest:
one that does not match its name was damaged during the download or since, and is refused.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from blockcoupling.digests import json_digest, remembered_digest
from blockcoupling.errors import UserError
from blockcoupling.transformer.weight_files import weight_files

Identity = dict[str, str | int | None]

# What tokenizers and processors are read from. Any such file decides numbers, unless it is known
# not to: transformers' versions and kinds of models differ in the names.
_BESIDE = (
    "*.json",
    "*.txt",
    "*.model",
    "*.model.*",
    "*.tiktoken",
    "*.spm",
    "*.bpe",
    "*.codes",
    "*.tokenizer",
)
_BESIDE_CODE = ("tokeniz*.py",)
_DECIDES_NONE = (
    "config.json",  # has a digest of its own
    "*.index.json",  # of weights
    "adapter_config.json",
    "generation_config.json",
    "chat_template*",
    "README*",
    "LICENSE*",
    "NOTICE*",
    "training.json",  # what a training says of itself
    "trainer_state.json",
    "*_results.json",
    "requirements*.txt",
)
_ADAPTER = ("adapter_config.json", "adapter_model.*")
# Settings that say where a file comes from or how to print it, and decide no number.
_IRRELEVANT = frozenset(
    ("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "chat_template")
)
_LFS_BLOB = re.compile(r"[0-9a-f]{64}")
_CONTENT = ("config", "weights", "tokenizer", "code")
_HOW_LOADED = ("init_seed", "dtype", "quantization")


def content_identity(
    description: Mapping[str, Any],
    directory: Path | str | None = None,
    digest: Callable[[Path], str] = remembered_digest,
) -> Identity:
    """What decides the numbers of a model: the content of its files, and how they are loaded.

    Args:
        description: a model's record, or what `model_record` takes (`Study.model_spec(…)`).
        directory: where the files lie; None: the description's `path`.
        digest: of a file. `digests.file_digest` reads every file again.

    Returns:
        `config`, `weights` (None if they are randomly re-initialised), `tokenizer`, `code` (None
        unless the directory's own code is trusted), each SHA-256 in hexadecimal digits, and
        `init_seed`, `dtype`, `quantization`.

    Raises:
        UserError: a file cannot be read.
    """
    place = Path(description["path"] if directory is None else directory)
    tokenizer = Path(description.get("tokenizer") or place)
    reinitialised = description.get("init_seed") is not None
    trusted = bool(description.get("trust_remote_code"))
    with_config = () if tokenizer.resolve() == place.resolve() else ("config.json",)
    together = partial(_together, digest)
    identity: Identity = {
        "config": together(place, _found(place, ("config.json",))),
        "weights": None if reinitialised else together(place, _weights(place)),
        "tokenizer": together(tokenizer, _beside(tokenizer) + _found(tokenizer, with_config)),
        "code": together(place, _found(place, ("*.py",))) if trusted else None,
        **{key: description.get(key) for key in _HOW_LOADED},
    }
    identity["dtype"] = identity["dtype"] or "float32"
    return identity


def origin(record: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """What a store says about the model it was measured on: its names, and its content.

    Args:
        record: of the model, with its `identity`.
        dtype: in which it was measured.
    """
    identity = record["identity"]
    content = {key: identity[key] for key in ("weights", "tokenizer") if identity[key] is not None}
    return {
        "model": record.get("name"),
        "checkpoint": record.get("checkpoint"),
        "model_id": record.get("id") or record.get("path") or record.get("name"),
        "revision": record.get("revision"),
        "quantization": record.get("quantization"),
        "dtype": dtype,
        **{f"{key}_sha256": digest for key, digest in content.items()},
        "identity": json_digest(identity),
    }


def demand_same_content(record: Mapping[str, Any], directory: Path | str, title: str) -> None:
    """Check that a directory still holds what its record says; cheap where nothing was written.

    Args:
        record: of the model; one without an `identity` is not compared.
        directory: where its files lie now.
        title: of the model, for the message.

    Raises:
        UserError: it holds something else.
    """
    if changed := changed_content(record, content_identity(record, directory)):
        remedy = (
            "Look it up again (in a study: run snakemake again; by hand: `blockcoupling model`)"
        )
        if record.get("source") == "train":
            remedy = f"Remove {directory} and run snakemake again, which makes it again"
        raise UserError(
            f"{title}: {' and '.join(changed)} changed after the model's record was made, so that "
            f"numbers would stand under the wrong model. {remedy}"
        )


def changed_content(record: Mapping[str, Any], now: Identity) -> list[str]:
    """Which contents of a model's files are not those that its record names.

    Args:
        record: of the model; one without an `identity` is not compared.
        now: what its files hold.
    """
    then = record.get("identity", {})
    # How files are loaded is the record's own word, and None is what it does not look at.
    held = [key for key in _CONTENT if now[key] is not None and then.get(key) is not None]
    return [key for key in held if now[key] != then[key]]


def _file_digest(digest: Callable[[Path], str], path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        UserError: the file cannot be read, or is in the hub's cache and not what the hub has.
    """
    try:
        target = path.resolve(strict=True)
        return _as_named(target, digest(target))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _as_named(target: Path, digest: str) -> str:
    """The digest, which is the name of a large file in the hub's cache."""
    if target.parent.name == "blobs" and _LFS_BLOB.fullmatch(target.name) and target.name != digest:
        raise UserError(
            f"{target} is damaged: its SHA-256 is not the one that the hub has it under; remove "
            "it, so that it is downloaded again"
        )
    return digest


def _weights(place: Path) -> list[Path]:
    """The files that weights are read from; pickles and others only where there is nothing else."""
    found = weight_files(place) or weight_files(place, ".bin") or _found(place, ("*.gguf",))
    return [*found, *_found(place, _ADAPTER)]


def _beside(place: Path) -> list[Path]:
    """The files of a tokenizer or an image processor."""
    found = _found(place, (*_BESIDE, *_BESIDE_CODE))
    return [
        file for file in found if not any(fnmatch(file.name, pattern) for pattern in _DECIDES_NONE)
    ]


def _found(place: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in place.glob(pattern)})


def _together(digest: Callable[[Path], str], place: Path, files: Iterable[Path]) -> str:
    return json_digest(
        {str(file.relative_to(place)): _settings_or_bytes(digest, file) for file in files}
    )


def _settings_or_bytes(digest: Callable[[Path], str], file: Path) -> str:
    """The digest of a file; of a small one of settings, without those that decide nothing."""
    if file.name not in ("config.json", "tokenizer_config.json", "processor_config.json"):
        return _file_digest(digest, file)
    try:
        settings = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except ValueError:
        return _file_digest(digest, file)  # loading it reports the problem
    if not isinstance(settings, dict):
        return _file_digest(digest, file)
    return json_digest({key: settings[key] for key in settings.keys() - _IRRELEVANT})
