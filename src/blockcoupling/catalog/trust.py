"""What a catalog file may ask for: this package's own forms, of files in the study's directory.

Intake reads by names of classes and functions that stand in the file, imports what is named there,
and fills in templates. A catalog may come from anybody; so nothing in it is imported, called or
filled in here. An entry is either of the form that this package writes, or refused, and the reason
names what it asked for.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

from blockcoupling.catalog.formats import FORMATS, described
from blockcoupling.catalog.plain import Facet

HERE = "{CATALOG_DIR}/"
"""What every url begins with: the directory of the catalog."""

_FOLDERS = ("catalog", "catalogs")
_TEMPLATE = re.compile(r"\{?\b(func|import|env|shell|cmd|pickle64|client_env)\((.*?)\)\}?")
_PROTOCOL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:(//|:)|://|::")
_KNOWN_NAMES = frozenset(
    {"intake.readers.convert:Pipeline", "intake.readers.convert:GenericFunc"}
    | {name for each in FORMATS.values() for name in (each.datatype, each.reader)}
    | {
        call["func"].removeprefix("{func(").removesuffix(")}")
        for each in FORMATS.values()
        for call in each.calls
    }
)


class Refused(Exception):
    """An entry asks for what is not allowed; the message says what."""


class Place(NamedTuple):
    """Where a catalog lies, and so its artifacts."""

    directory: str
    """Of the catalog: a local path or an fsspec url."""
    local: bool

    @classmethod
    def around(cls, catalog: str) -> Place:
        """Return where a catalog file lies."""
        if "://" in catalog:
            return cls(catalog.rpartition("/")[0], local=False)
        return cls(str(Path(catalog).absolute().parent), local=True)

    def of(self, relative: str) -> str:
        """Return where something lies whose path is relative to the catalog."""
        if self.local:
            return os.path.realpath(Path(self.directory) / relative)
        protocol, path = self.directory.split("://", 1)
        return f"{protocol}://{posixpath.normpath(f'{path}/{relative}')}"

    def study_directories(self) -> list[str]:
        """Return the directories that a study has for itself, by its own name and behind links.

        That of the catalog; or the one around it, where that is a folder named `catalog`.
        """
        if not self.local:
            protocol, path = self.directory.split("://", 1)
            return [f"{protocol}://{_around(PurePosixPath(path))}"]
        named = Path(self.directory).absolute()
        return [os.path.realpath(_around(each)) for each in (named, named.resolve())]

    def holds(self, where: str) -> bool:
        """Return whether a place lies in the study's directory."""
        separator = os.sep if self.local else "/"
        return any(
            where.startswith(root.rstrip(separator) + separator)
            for root in self.study_directories()
        )


def _around(directory: PurePath) -> PurePath:
    return directory.parent if directory.name in _FOLDERS else directory


def url_of(entry: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, str]:
    """Return the url of an entry's artifact, if the entry is one that this package writes.

    Args:
        entry: what the catalog file says about it.
        data: what the catalog file says about files.

    Returns:
        The key of the file in `data`, and its url.

    Raises:
        Refused: it is not.

    """
    key, file = _data_of(entry, data)
    url = file.get("kwargs", {}).get("url") if isinstance(file.get("kwargs"), Mapping) else None
    kind = entry["metadata"]["kind"]
    suffix = PurePosixPath(url).suffix if isinstance(url, str) else ""
    if isinstance(url, str):
        _demand_plain(url)
    if isinstance(url, str) and suffix in FORMATS:
        own_data, own_entry = described(suffix, kind, key, url)
        if file == own_data and {**entry, "metadata": None} == {**own_entry, "metadata": None}:
            return key, url
    _demand_known_names(entry, file)
    if not isinstance(url, str):
        raise Refused("it names no single file")
    if suffix not in FORMATS:
        raise Refused(f"it names {url}; only files that end in {', '.join(FORMATS)} are read")
    raise Refused(
        "it asks to be read in another way than this version writes; join the entry files again "
        "(`blockcoupling catalog`)"
    )


def _demand_plain(url: str) -> None:
    """Refuse urls that would be fetched, or filled in."""
    relative = url.removeprefix(HERE)
    if _PROTOCOL.search(relative):
        raise Refused(f"it names {url}; only files beside the catalog are read, nothing is fetched")
    if found := _TEMPLATE.search(relative):
        raise Refused(f"it asks for {found[1]}({found[2]}), which is not done")


def _data_of(entry: Any, data: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the key and the description of the one file that an entry is about."""
    asked = re.search(r"^\{data\((.+)\)\}$", "\n".join(_texts(entry.get("kwargs"))), re.MULTILINE)
    key = asked[1] if asked else ""
    file = data.get(key)
    if not isinstance(file, Mapping):
        _demand_known_names(entry, {})
        raise Refused("it names no file of this catalog")
    return key, file


def _demand_known_names(entry: Mapping[str, Any], file: Mapping[str, Any]) -> None:
    """Refuse by name whatever would be imported, called, looked up or unpickled."""
    for what, name in (("reader", entry.get("reader")), ("type of file", file.get("datatype"))):
        if name is not None and not (isinstance(name, str) and name in _KNOWN_NAMES):
            raise Refused(f"it asks for the {what} {name}, which is not among those that are used")
    for text in [*_texts(entry), *_texts(file)]:
        for template, argument in _TEMPLATE.findall(text):
            if template not in ("func", "import") or argument not in _KNOWN_NAMES:
                raise Refused(f"it asks for {template}({argument}), which is not done")


def _texts(value: Any) -> Iterator[str]:
    """Yield every text of nested mappings and lists, those that hold themselves included."""
    seen: set[int] = set()
    left = [value]
    while left:
        own = left.pop()
        if isinstance(own, str):
            yield own
        elif isinstance(own, (Mapping, list, tuple)) and id(own) not in seen:
            seen.add(id(own))
            left += [*own.keys(), *own.values()] if isinstance(own, Mapping) else own


def place_of(url: str, place: Place, *, allow_outside: bool) -> str:
    """Return where a url of a catalog leads.

    Args:
        url: as :func:`url_of` returns it.
        place: where the catalog lies.
        allow_outside: whether it may lead out of the study's directory.

    Raises:
        Refused: it leads where it may not.

    """
    relative = url.removeprefix(HERE)
    where = place.of(relative)
    if relative == url and not allow_outside:
        raise Refused(f"{url} is no path relative to the catalog; {_IF_TRUSTED}")
    if not allow_outside and not place.holds(where):
        raise Refused(f"{where} lies outside {place.study_directories()[0]}; {_IF_TRUSTED}")
    return where


_IF_TRUSTED = "if you trust this catalog, open it with allow_outside=True"


def demand_no_links(where: Path) -> None:
    """Refuse a store in which something is a link, which could lead anywhere.

    Raises:
        Refused: there is one.

    """
    for folder, folders, files in os.walk(where):
        for each in (*folders, *files):
            path = Path(folder, each)
            if path.is_symlink():
                raise Refused(f"{path} is a link; {_IF_TRUSTED}")


CODECS = frozenset(
    ("bytes", "endian", "zstd", "blosc", "gzip", "crc32c", "transpose", "vlen-utf8", "vlen-bytes")
)
"""How chunks may be coded: what comes with Zarr, and turns bytes into numbers or text."""
_SHARDS = "sharding_indexed"


def demand_known_codecs(where: Path) -> None:
    """Refuse a store whose chunks ask for a codec besides those of Zarr itself.

    Zarr looks names of codecs up among all packages that are installed, and one that unpickles, of
    whatever package, would run what stands in a chunk.

    Raises:
        Refused: naming the codec.

    """
    # Of the arrays that are opened: those in the root, where links lead too.
    for file in sorted([*where.glob("zarr.json"), *where.glob("*/zarr.json")]):
        try:
            about = json.loads(file.read_bytes())
        except ValueError:
            continue  # no metadata: whoever opens the store says so
        asked = about.get("codecs", []) if isinstance(about, Mapping) else []
        if unknown := sorted({name for name in _codecs(asked) if name not in CODECS}):
            array = file.parent.relative_to(where)
            raise Refused(
                f"the array {array} of {where} asks for the codec {', '.join(unknown)}, which is "
                "not among those that are used"
            )


def _codecs(asked: Any) -> Iterator[str]:
    """Names of codecs in an array's metadata, those within shards included."""
    for each in asked if isinstance(asked, list) else [asked]:
        name = each.get("name") if isinstance(each, Mapping) else each
        if name == _SHARDS and isinstance(each.get("configuration"), Mapping):
            for key in ("codecs", "index_codecs"):
                yield from _codecs(each["configuration"].get(key, []))
        else:
            yield str(name)


def demand_metadata(name: str, entry: Any) -> str | None:
    """Return what is wrong with an entry that cannot even be listed; None if nothing is."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("metadata"), Mapping):
        return f"{name} says nothing about itself"
    if not isinstance(entry["metadata"].get("kind"), Facet):
        return f"{name} has no kind"
    return None
