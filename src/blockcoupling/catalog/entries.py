"""Entry files: one artifact each, written by the job that made it.

A file says what the artifact is, where it lies (relative to the file, so that a study can be moved
as a whole) and what is in it: its digest changes with its content, so that whatever depends on the
entry is made again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import blockcoupling
from blockcoupling.atomic import replacing
from blockcoupling.catalog.formats import FORMATS
from blockcoupling.catalog.kinds import KINDS
from blockcoupling.catalog.making import with_relative_paths
from blockcoupling.catalog.plain import as_yaml, parse, plain, read_text, relative
from blockcoupling.errors import UserError
from blockcoupling.store.checksums import digest
from blockcoupling.wording import did_you_mean

_IN_NAME = ("model", "checkpoint", "dataset", "score", "modality", "figure", "format")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MADE = "made"
"""Key of the provenance in an entry's metadata."""
_RESERVED = {"kind", "schema_version", "created_by", "digest", MADE}


def entry(kind: str, path: str | Path, facets: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe one artifact.

    Args:
        kind: one of :data:`KINDS`.
        path: the artifact; for a Zarr store the directory or the ``zarr.json`` in it.
        facets: what to find it by (model, checkpoint, dataset, …). NumPy scalars and paths are
            stored as plain values; ``None`` is left out.

    Returns:
        ``{"name", "path", "metadata"}``; the name joins the kind and the identifying facets with
        slashes, e.g. ``coupling/pythia-6.9b/main/arc``. ``metadata["digest"]`` is that of the
        content (see :func:`store.checksums.digest`).

    Raises:
        UserError: unknown kind, missing artifact, unreadable format, a facet that is not a plain
            value, or an identifying facet that is not a valid name.
    """
    from blockcoupling.store.schema import SCHEMA_VERSION

    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}{did_you_mean(kind, KINDS)}")
    artifact = Path(path)
    if artifact.name == "zarr.json":
        artifact = artifact.parent
    demand_format(artifact)
    if not artifact.exists():
        raise UserError(f"{artifact} does not exist: make it before it is entered in the catalog")
    given = {key: plain(key, value) for key, value in (facets or {}).items() if value is not None}
    if reserved := given.keys() & _RESERVED:
        raise UserError(f"facets that are set by the catalog itself: {', '.join(sorted(reserved))}")
    identity = [str(given[key]) for key in _IN_NAME if key in given]
    demand_names(identity)
    return {
        "name": "/".join([kind, *identity]),
        "path": str(artifact),
        "metadata": {
            "kind": kind,
            "source": KINDS[kind].made_by,
            **given,
            "schema_version": SCHEMA_VERSION,
            "created_by": f"blockcoupling {blockcoupling.__version__}",
            "digest": digest(artifact),
        },
    }


def write_entry(
    file: str | Path,
    kind: str,
    path: str | Path,
    facets: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the entry file of one artifact, atomically; return what it says.

    Args:
        file: the entry file (YAML); directories are made.
        kind: as in :func:`entry`.
        path: as in :func:`entry`; stored relative to the entry file's directory.
        facets: as in :func:`entry`.
        made: how it was made, from :func:`making.making`; kept in the entry's metadata.

    Raises:
        UserError: as :func:`entry`.
    """
    described = entry(kind, path, facets)
    target = Path(file)
    if made is not None:
        described["metadata"][MADE] = with_relative_paths(made, Path(described["path"]))
    described["path"] = relative(Path(described["path"]), target.parent)
    with replacing(target) as fresh:
        fresh.write_text(as_yaml(described), encoding="utf-8")
    return described


def read_entry(file: str | Path) -> dict[str, Any]:
    """Read an entry file; its ``path`` comes back absolute.

    Raises:
        UserError: the file is missing or not an entry file, or its artifact is missing.
    """
    source = Path(file)
    text = read_text(source, "the entry file")
    described = parse(text, f"{source} is not YAML; delete it and make it again")
    if not _is_entry(described):
        raise UserError(f"{source} is not an entry file; `blockcoupling entry` writes them")
    artifact = (source.parent / described["path"]).resolve()
    demand_format(artifact)
    if not artifact.exists():
        raise UserError(f"{source} names {artifact}, which does not exist")
    return {**described, "path": str(artifact)}


def _is_entry(described: Any) -> bool:
    return (
        isinstance(described, dict)
        and described.keys() == {"name", "path", "metadata"}
        and isinstance(described["name"], str)
        and isinstance(described["path"], str)
        and isinstance(described["metadata"], dict)
        and isinstance(described["metadata"].get("kind"), str)
    )


def demand_names(values: Iterable[str]) -> None:
    """Raise a UserError for a value that cannot be part of an entry's name."""
    if wrong := [value for value in values if not _NAME.fullmatch(value)]:
        raise UserError(f"not a name (letters, digits, '.', '_', '-'): {', '.join(wrong)}")


def demand_format(artifact: Path) -> None:
    """Raise a UserError where the catalog has no reader for such a file."""
    if artifact.suffix not in FORMATS:
        endings = ", ".join(FORMATS)
        raise UserError(f"no reader for {artifact}: the catalog reads files that end in {endings}")
