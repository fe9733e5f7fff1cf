"""The record of a model: what it is and how it is loaded, a plain mapping kept as JSON.

`sources.models` finds out what is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockcoupling.atomic import replacing
from blockcoupling.config.models import step_of
from blockcoupling.digests import json_digest
from blockcoupling.errors import UserError

SEAL = "record_sha256"
"""Key of a record's digest in its file."""
_AGAIN = "remove it, then run snakemake again (by hand: `blockcoupling model`)"
FACTS = ("family", "base", "facts", "tokens", "parameters")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def with_facts(record: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the facts in the model's description, which no number depends on.

    Args:
        record: What was found out.
        spec: As for `model_record`: `family`, `base`, `facts`, and where they are known better
            than they can be found out, `tokens` and `parameters`.
    """
    known = {key: spec.get(key) or record.get(key) for key in ("tokens", "parameters")}
    given = {
        "family": spec.get("family"),
        "base": spec.get("base"),
        "facts": spec.get("facts") or {},
    }
    return {**record, **known, **given}


def without_facts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a model's description that identify its weights and tokenizer."""
    return {key: value for key, value in spec.items() if key not in FACTS}


def spec_from_argument(argument: str) -> dict[str, Any]:
    """What `model_record` needs, from one word: a directory, or a hub id with `@revision`.

    Raises:
        UserError: it is neither.
    """
    directory = Path(argument).expanduser()
    if argument and directory.is_dir():
        name = directory.resolve().name
        return {"name": name, "checkpoint": "main", "source": "local", "path": str(directory)}
    identity, _, revision = argument.partition("@")
    looks_like_a_path = argument.startswith((".", "/", "~")) or argument.endswith("/")
    if looks_like_a_path or not _HUB_ID.fullmatch(identity):
        raise UserError(
            f"{argument!r} is neither a directory here ({Path.cwd()}) nor a model's id on the hub, "
            "such as EleutherAI/pythia-70m or EleutherAI/pythia-70m@step1000"
        )
    return {
        "name": identity.rsplit("/", 1)[-1],
        "checkpoint": revision.replace("/", "-") or "main",
        "source": "hub",
        "id": identity,
        "revision": revision or "main",
        "step": step_of(revision),
    }


def write_record(record: Mapping[str, Any], path: Path | str) -> None:
    """Write a record as JSON, with a digest of it; whole or not at all."""
    sealed = {**record, SEAL: json_digest(record)}
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(sealed, indent=1, ensure_ascii=False) + "\n")


def read_record(path: Path | str) -> dict[str, Any]:
    """Read a record.

    Raises:
        UserError: there is none, it is not one, or it is not as it was written.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the model record {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not a model record: {error}; {_AGAIN}") from error
    digest = record.pop(SEAL, None) if isinstance(record, dict) else None
    if digest is not None and digest != json_digest(record):  # None: of an earlier version
        raise UserError(f"{path} has changed since it was written: {_AGAIN}")
    if not isinstance(record, dict) or "checkpoint" not in record:
        raise UserError(f"{path} is not a model record; `blockcoupling model` makes them")
    return record
