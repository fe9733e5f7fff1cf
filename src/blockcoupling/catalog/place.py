"""Where the artifacts of a catalog may be: in the study's directory, and without surprises.

A catalog may come from anybody. Its file is data: name, metadata and path of each entry. Which
function reads an artifact follows from the ending of its path (:data:`formats.FORMATS`); nothing
that a catalog file names is imported, called or filled in. What remains is checked here: that a
path does not lead out of the study, and that a Zarr store uses Zarr's own codecs.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

from blockcoupling.catalog.formats import FORMATS
from blockcoupling.errors import UserError

HERE = "{CATALOG_DIR}/"
"""Beginning of every url in a catalog file: the directory of the catalog."""

_FOLDERS = ("catalog", "catalogs")
_NOT_A_PATH = re.compile(r"[{}]|:/|::")
"""Templates that Intake would fill in, and protocols."""
_IF_TRUSTED = "if you trust this catalog, open it with allow_outside=True"


def problem(url: Any) -> str | None:
    """Return why a url in a catalog file is not read, wherever it leads; None if it may be."""
    if not isinstance(url, str):
        return "it names no file"
    if _NOT_A_PATH.search(url.removeprefix(HERE)):
        return f"it names {url}; only files next to the catalog are read, nothing is fetched"
    if ending(url) not in FORMATS:
        return f"it names {url}; only files that end in {', '.join(FORMATS)} are read"
    return None


def ending(url: str) -> str:
    """Return the ending of a path; as text, because a large catalog has half a million of them."""
    return posixpath.splitext(url)[1]


class Place(NamedTuple):
    """Where a catalog is, and so its artifacts."""

    directory: str
    """Directory of the catalog: a local path or an fsspec url."""
    local: bool

    @classmethod
    def around(cls, catalog: str) -> Place:
        """Return where a catalog file is."""
        if "://" in catalog:
            return cls(catalog.rpartition("/")[0], local=False)
        return cls(str(Path(catalog).absolute().parent), local=True)

    def find(self, url: str, *, allow_outside: bool) -> str:
        """Return where a url of the catalog leads.

        Args:
            url: of an entry.
            allow_outside: whether it may lead out of the study's directory.

        Raises:
            UserError: it leads where it may not, or to a store that is not read.
        """
        if (wrong := problem(url)) is not None:
            raise UserError(wrong)
        where = self._of(url.removeprefix(HERE))
        if not allow_outside:
            if not url.startswith(HERE):
                raise UserError(f"{url} is not a path relative to the catalog; {_IF_TRUSTED}")
            if not self.holds(where):
                raise UserError(f"{where} is outside {self.study_directories()[0]}; {_IF_TRUSTED}")
        if self.local and FORMATS[PurePosixPath(url).suffix].directory:
            _demand_known_codecs(Path(where))
            if not allow_outside:
                _demand_no_links(Path(where))
        return where

    def _of(self, relative: str) -> str:
        if self.local:
            return os.path.realpath(Path(self.directory) / relative)
        protocol, path = self.directory.split("://", 1)
        return f"{protocol}://{posixpath.normpath(f'{path}/{relative}')}"

    def study_directories(self) -> list[str]:
        """Return the directories of the study, by their own name and with links resolved.

        That of the catalog; or its parent, if the catalog is in a folder named `catalog`.
        """
        if not self.local:
            protocol, path = self.directory.split("://", 1)
            return [f"{protocol}://{_around(PurePosixPath(path))}"]
        named = Path(self.directory).absolute()
        return [os.path.realpath(_around(each)) for each in (named, named.resolve())]

    def holds(self, where: str) -> bool:
        """Return whether a place is in the study's directory."""
        separator = os.sep if self.local else "/"
        return any(
            where.startswith(root.rstrip(separator) + separator)
            for root in self.study_directories()
        )


def _around(directory: PurePath) -> PurePath:
    return directory.parent if directory.name in _FOLDERS else directory


def _demand_no_links(store: Path) -> None:
    """Refuse a store that contains a link, which could lead anywhere."""
    for folder, folders, files in os.walk(store):
        for each in (*folders, *files):
            path = Path(folder, each)
            if path.is_symlink():
                raise UserError(f"{path} is a link; {_IF_TRUSTED}")


CODECS = frozenset(
    ("bytes", "endian", "zstd", "blosc", "gzip", "crc32c", "transpose", "vlen-utf8", "vlen-bytes")
)
"""Codecs of chunks that come with Zarr and turn bytes into numbers or text."""
_SHARDS = "sharding_indexed"


def _demand_known_codecs(store: Path) -> None:
    """Refuse a store with a codec that does not come with Zarr.

    Zarr looks names of codecs up in all installed packages, and one that unpickles would run what
    is in a chunk.
    """
    # Only the arrays that are opened: those in the root.
    for file in sorted([*store.glob("zarr.json"), *store.glob("*/zarr.json")]):
        try:
            about = json.loads(file.read_bytes())
        except ValueError:
            continue  # opening the store reports it
        asked = about.get("codecs", []) if isinstance(about, Mapping) else []
        if unknown := sorted({name for name in _codecs(asked) if name not in CODECS}):
            raise UserError(
                f"the array {file.parent.relative_to(store)} of {store} asks for the codec "
                f"{', '.join(unknown)}, which does not come with Zarr"
            )


def _codecs(asked: Any) -> Iterator[str]:
    """Names of codecs in an array's metadata, including those within shards."""
    for each in asked if isinstance(asked, list) else [asked]:
        name = each.get("name") if isinstance(each, Mapping) else each
        if name == _SHARDS and isinstance(each.get("configuration"), Mapping):
            for key in ("codecs", "index_codecs"):
                yield from _codecs(each["configuration"].get(key, []))
        else:
            yield str(name)
