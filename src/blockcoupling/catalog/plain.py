"""Text of entry files and catalogs: plain values without tags, so that nothing is run; paths."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from blockcoupling.errors import UserError

Facet = str | int | float | bool
"""A value that one can search for."""

# The C parser and writer are ten times faster.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_DEEPEST = 50

# What YAML takes for a line break, or does not take at all, where JSON does.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def plain(key: str, value: Any) -> Any:
    """Turn NumPy scalars and paths into values that YAML and JSON have.

    Raises:
        UserError: of anything else; `key` says of what.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [plain(key, each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): plain(key, each) for name, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"facet {key}: {value} is not a number to search for; omit it")
    if value is None or isinstance(value, Facet):
        return value
    raise UserError(f"facet {key}: a {type(value).__name__} cannot be stored; use text or a number")


def parse(text: str, what: str) -> Any:
    """Read JSON or YAML; a tag, which could name code to run, is an error.

    Args:
        text: of a file.
        what: is said to be wrong where it cannot be read.

    Raises:
        UserError: it is neither.
    """
    try:
        if text.startswith("{"):
            try:
                return json.loads(text)  # a hundred times faster, which a large catalog needs
            except ValueError:
                pass  # YAML can begin like that too
        _demand_shallow(text)
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{what} ({reason})") from error


def _demand_shallow(text: str) -> None:
    """Refuse what is nested so deeply that the C parser would overflow its stack and crash."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"nested more than {_DEEPEST} deep")


def read_text(file: Path, what: str) -> str:
    """Read a file as text.

    Raises:
        UserError: it cannot be read; `what` says what it was to be.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {what} {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {file} is damaged: it is not text") from error


def as_yaml(content: dict[str, Any]) -> str:
    """Write a small mapping for people to read."""
    text: str = yaml.dump(content, Dumper=_Dumper, allow_unicode=True)
    return text


def as_json(value: Any) -> str:
    """Write a value on one line, as JSON that is YAML at the same time."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_json(str(k))}: {as_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(as_json, value)) + "]"
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        # YAML 1.1 takes 1e-05 for text.
        return f"{mantissa}{'' if '.' in mantissa else '.0'}{e}{exponent}"
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def relative(path: Path, directory: Path) -> str:
    """Return the way from a directory to a path, as POSIX text."""
    # Real paths: the system resolves `link/..` to the parent of the link's target.
    return Path(os.path.relpath(path.resolve(), directory.resolve())).as_posix()
