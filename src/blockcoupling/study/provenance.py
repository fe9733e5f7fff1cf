"""Provenance of an artifact: code, configuration, model, seeds, libraries and inputs.

All of it is in the artifact's entry, written by the job that made it, and in an extraction store's
attributes. Here it is put together, and inputs are followed upstream.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockcoupling.catalog.catalog_file import open_catalog
from blockcoupling.catalog.entries import MADE
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.store.checksums import attributes, without_seal
from blockcoupling.store.checksums import digest as content_digest
from blockcoupling.wording import did_you_mean

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_OF_ENTRY = ("digest", "source", "created_by", "schema_version", MADE)
_DIGEST = re.compile("[0-9a-f]{64}")
_SHOWN = 12  # characters of a digest of another artifact; JSON has all of them


def provenance(catalog: Catalog, name: str) -> dict[str, Any]:
    """Return all that is known about how an artifact was made.

    Nothing that an entry names is run. Only files are opened that reading the entry's own artifact
    would open.

    Args:
        catalog: The catalog that has it.
        name: The name of its entry.

    Returns:
        `entry`, `path`, `facets`, `digest` and whether the artifact still has it (`unchanged`;
        None if that is not known); `made_by`; `made`: as in `catalog.making.making`, {} if it was
        not recorded; `seeds` by place; `attributes` of a store; `from`: the inputs by name, each
        with `path` and `digest`; with `entry` and `unchanged` if it is an artifact of this catalog;
        with its `entries` if it is a catalog in the study's directory.

    Raises:
        UserError: The entry is unknown, or its path is outside of the study.

    """
    if name not in catalog.entries:
        hint = did_you_mean(name, catalog, list_all=False)
        raise UserError(f"no entry {name!r}{hint}; `list(catalog)` has the names")
    path = catalog.path(name)
    metadata = catalog.entries[name].metadata
    made = _made(catalog, name)
    held = _attributes(path)
    return {
        "entry": name,
        "path": str(path),
        "facets": {key: value for key, value in metadata.items() if key not in _OF_ENTRY},
        "digest": metadata.get("digest"),
        "unchanged": _unchanged(path, metadata.get("digest")),
        "made_by": metadata.get("created_by"),
        "made": made,
        "seeds": dict(_seeds(made, held)),
        "attributes": held,
        "from": dict(_inputs(catalog, path, made)),
    }


def upstream(catalog: Catalog, name: str) -> Iterator[tuple[int, str]]:
    """Yield every entry upstream of an artifact, each once, with its depth.

    Args:
        catalog: The catalog that has them.
        name: The name of the artifact's entry, which is not among them.

    """
    seen, left = {name}, [(1, name)]
    while left:
        depth, own = left.pop()
        made = _made(catalog, own)
        found = [each.get("entry") for _, each in _inputs(catalog, catalog.path(own), made)]
        for each in filter(None, found):
            if each not in seen:
                seen.add(each)
                yield depth, each
                left.append((depth + 1, each))


def _made(catalog: Catalog, name: str) -> Mapping[str, Any]:
    """The record of provenance in an entry, or {}."""
    made = catalog.entries[name].metadata.get(MADE, {})
    if not _is_making(made):
        raise UserError(f"{name}: the provenance in its entry is damaged")
    return made


def _is_making(made: Any) -> bool:
    """Whether it has the form of `making`; a catalog may come from a stranger."""
    if not isinstance(made, Mapping):
        return False
    try:
        json.dumps(made)
    except (ValueError, TypeError, RecursionError):
        return False  # it contains itself, as YAML can, or dates
    words = made.get("command", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return False
    parts = [made.get(key, {}) for key in ("code", "libraries", "inputs", "model")]
    return all(isinstance(part, Mapping) for part in parts) and all(
        isinstance(each, Mapping) and isinstance(each.get("path"), str)
        for each in made.get("inputs", {}).values()
    )


def _attributes(path: Path) -> dict[str, Any]:
    if path.suffix != ".zarr" or not (path / "zarr.json").is_file():
        return {}
    try:
        return without_seal(attributes(path))
    except MeasurementError:
        return {}  # `blockcoupling verify` says what is wrong with it


def _unchanged(path: Path, entered: Any) -> bool | None:
    try:
        found = content_digest(path) if path.exists() else None
    except (OSError, UserError, MeasurementError):
        return False
    return None if found is None or entered is None else found == entered


def _seeds(made: Mapping[str, Any], held: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Seeds in a command line, in the JSON in it, and of a store."""
    for option, value in itertools.pairwise(made.get("command", [])):
        if option.startswith("--") and option.endswith("seed"):
            yield option, value
        elif option == "--spec" and value.startswith("{"):
            with suppress(ValueError, RecursionError):  # not written by a verb
                yield from _seeds_in(json.loads(value), "")
    for place, seed in _seeds_in(made.get("model", {}), ""):
        yield f"the model's {place}", seed
    if "seed" in held:
        yield "the store's `seed`", held["seed"]


def _seeds_in(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            inner = f"{place}.{key}".removeprefix(".")
            if str(key).endswith("seed") and each is not None:
                yield f"`{inner}`", each
            yield from _seeds_in(each, inner)


def _inputs(
    catalog: Catalog, path: Path, made: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for what, each in made.get("inputs", {}).items():
        where = os.path.normpath(path.parent / str(each["path"]))
        found: dict[str, Any] = {"path": where, "digest": each.get("digest")}
        if (entry := catalog.at(where)) is not None:
            now = catalog.entries[entry].metadata.get("digest")
            found |= {"entry": entry, "unchanged": now == each.get("digest")}
        elif what == "catalog" and catalog.allows(where) and Path(where).is_file():
            found |= {
                "entries": sorted(open_catalog(where).entries),
                "unchanged": content_digest(Path(where)) == each.get("digest"),
            }
        yield str(what), found


# -------------------------------------------------------------------------------------- as text


def as_text(found: Mapping[str, Any], further: Sequence[tuple[int, str]]) -> str:
    """A page with a heading for each question, and its answer.

    Args:
        found: from :func:`provenance`.
        further: from :func:`upstream`.
    """
    made = found["made"]
    sections = {
        found["entry"]: _artifact(found),
        "code": _code(found),
        "command": [shlex.join(made["command"]) if made else "not recorded: entered by hand"],
        "model": [f"{key}: {_short(value)}" for key, value in _flat(made.get("model", {}))],
        "seeds": [f"{where}: {seed}" for where, seed in found["seeds"].items()],
        "attributes of the store": [f"{k}: {_short(v)}" for k, v in found["attributes"].items()],
        "libraries": _libraries(made),
        "inputs": [_input(what, each) for what, each in found["from"].items()],
        "inputs of the inputs": [f"{'  ' * (depth - 2)}{name}" for depth, name in further],
    }
    return "\n".join(
        _printable(line)
        for heading, lines in sections.items()
        if lines
        for line in (heading, *(f"  {each}" for each in lines))
    )


def _artifact(found: Mapping[str, Any]) -> list[str]:
    state = {
        True: "unchanged",
        False: "CHANGED since it was entered: see `blockcoupling verify`",
        None: "not compared with the file",
    }
    digest = [f"sha256 {found['digest']}, {state[found['unchanged']]}"] if found["digest"] else []
    facets = ", ".join(f"{key} {value}" for key, value in found["facets"].items() if key != "kind")
    return [found["path"], *digest, *([facets] if facets else [])]


def _code(found: Mapping[str, Any]) -> list[str]:
    code = found["made"].get("code", {})
    commit = [f"commit {code['commit']}"] if "commit" in code else []
    changed = ["with uncommitted changes"] if code.get("changed") else []
    return [", ".join([str(found["made_by"]), *commit, *changed])]


def _libraries(made: Mapping[str, Any]) -> list[str]:
    versions = [f"{name} {version}" for name, version in made.get("libraries", {}).items()]
    lines = textwrap.wrap(", ".join(versions), 96)
    return [*lines, *([str(made["machine"])] if "machine" in made else [])]


def _input(what: str, each: Mapping[str, Any]) -> str:
    where = each.get("entry") or each["path"]
    digest = f" (sha256 {_short(each['digest'])})" if each["digest"] else ""
    kinds = Counter(name.partition("/")[0] for name in each.get("entries", []))
    if kinds:
        digest += ": " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"{what}: {where}{digest}{', changed since' * (each.get('unchanged') is False)}"


def _flat(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        if isinstance(each, Mapping):
            yield from ((f"{key}, {inner}", what) for inner, what in _flat(each))
        elif each is not None:
            yield str(key), each


def _printable(line: str) -> str:
    """A line without control characters; a catalog may come from a stranger."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:_SHOWN]}…" if _DIGEST.fullmatch(text) else text
