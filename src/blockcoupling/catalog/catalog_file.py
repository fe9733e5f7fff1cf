"""Catalog files: built from entry files, from scratch, and opened."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]

import blockcoupling
from blockcoupling.atomic import replacing
from blockcoupling.catalog.catalog import Catalog, key_of
from blockcoupling.catalog.entries import read_entry
from blockcoupling.catalog.formats import described
from blockcoupling.catalog.owner import HEAD, Owner, taken
from blockcoupling.catalog.place import HERE, Place
from blockcoupling.catalog.plain import Facet, as_json, parse, read_text, relative
from blockcoupling.catalog.studies import STUDY, Source, demand_comparable, put_together
from blockcoupling.errors import UserError

logger = logging.getLogger(__name__)

COMBINED = "combined"
"""In the metadata of a catalog: its entries are of several studies."""

FILE = "catalog.yml"
"""The catalog of a published directory."""

_BEGIN = '{"version": 2,'
"""Beginning of every catalog that is written here; entry files begin differently."""


def join(
    files: Iterable[str | Path],
    out: str | Path,
    *,
    study: str | None = None,
    results: str | Path | None = None,
    configuration: str | Path | None = None,
    command: str | None = None,
    comparable: bool = False,
) -> Catalog:
    """Build the catalog file from entry files, replacing what was there; return it opened.

    The result depends on the entries alone, not on their order. Entries of catalogs of several
    studies keep their study, in their names and as a facet (see :mod:`catalog.studies`).

    Args:
        files: made by :func:`write_entry`, or by this function: a catalog counts as its entries.
        out: the catalog file; urls are stored relative to its directory.
        study: whose catalog it is; the file of another study is left alone.
        results: where that study's results are.
        configuration: its configuration file, seen from where the workflow runs; for people.
        command: what was typed to make the study, whole; for people.
        comparable: whether to refuse studies whose tables cannot be put into one.

    Raises:
        UserError: entry files that cannot be used, names that more than one of them claims, a
            catalog file of another study, or studies that cannot be compared.
    """
    target = Path(out)
    owner = None if study is None or results is None else Owner.of(study, results, target)
    if owner is not None and (why := taken(target, owner.study, str(results))):
        raise UserError(why)
    entries, several = _joined(files)
    if comparable:
        about = {name: each["metadata"] for name, each in entries.items()}
        measured = {name: each for name, each in about.items() if "model" in each}
        demand_comparable(measured, about, remedy="Measure them with the same settings and prompts")
    metadata = {
        "description": "Block coupling of transformers: every artifact of a study",
        "created_by": f"blockcoupling {blockcoupling.__version__}",
        **(owner._asdict() if owner else {}),
        **({"configuration": os.fspath(configuration)} if configuration else {}),
        **({"command": command} if command else {}),
        **({COMBINED: True} if several else {}),
    }
    write_catalog(target, entries, metadata)
    place = Place.around(os.fspath(target))
    if outside := [name for name, each in entries.items() if not place.holds(each["path"])]:
        logger.info(
            "%d of %d artifacts are outside %s, the first of them is %s: open the catalog with "
            "allow_outside=True",
            len(outside),
            len(entries),
            place.study_directories()[0],
            outside[0],
        )
    return open_catalog(target, allow_outside=True)


def write_catalog(
    target: Path, entries: Mapping[str, Mapping[str, Any]], metadata: Mapping[str, Any]
) -> None:
    """Write a catalog file.

    Args:
        target: the file.
        entries: path and metadata of each artifact, by name.
        metadata: of the catalog.
    """
    with replacing(target) as fresh:
        fresh.write_text(_written(entries, metadata, target.parent), encoding="utf-8")


def catalog_in(path: str | Path) -> str:
    """Return the catalog file that a path or url names: itself, or the one in its directory."""
    url = os.fspath(path)
    if "://" in url:
        return url if url.endswith((".yml", ".yaml")) else f"{url.rstrip('/')}/{FILE}"
    return str(Path(url, FILE)) if Path(url).is_dir() else url


def _joined(files: Iterable[str | Path]) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return the entries by name, and whether they are of several studies."""
    sources, problems = [], []
    for file in files:
        try:
            if _is_catalog(file):
                sources.append(_of_catalog(file))
            else:
                found = read_entry(file)
                sources.append(Source(str(file), {found["name"]: found}))
        except UserError as error:
            problems.append(str(error))
    entries, claimed = put_together(sources)
    if problems := [*problems, *claimed]:
        raise UserError("the catalog cannot be built:\n" + "\n".join(f"- {p}" for p in problems))
    several = any(study for study, _ in entries.values()) or any(s.combined for s in sources)
    return {name: _of_study(study, each) for name, (study, each) in entries.items()}, several


def _of_study(study: str | None, described: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with its study as a facet, in a catalog of several."""
    if study is None:
        return described
    return {**described, "metadata": {**described["metadata"], STUDY: study}}


def _is_catalog(file: str | Path) -> bool:
    try:
        with Path(file).open("rb") as stream:
            return stream.read(len(_BEGIN)) == _BEGIN.encode()
    except OSError:
        return False  # reading it reports the problem


def _of_catalog(file: str | Path) -> Source:
    """Return what :func:`read_entry` would of the entries that a catalog was joined from."""
    opened = _open(file, allow_outside=True)
    entries = {}
    for name, each in opened.entries.items():
        path = opened.path(name).resolve()
        if not path.exists():
            raise UserError(f"{file} names {path}, which does not exist")
        entries[name] = {"name": name, "path": str(path), "metadata": dict(each.metadata)}
    return _source(str(file), opened, entries)


def _source(file: str, opened: Catalog, entries: Mapping[str, Any]) -> Source:
    """Return what is put together with others of an opened catalog."""
    about, place = opened.metadata, Place.around(file).directory
    study = None
    if isinstance(about.get("study"), str):
        study = about["study"], os.path.normpath(f"{place}/{about.get('results')}")
    return Source(file, entries, study, bool(about.get(COMBINED)))


def _written(
    entries: Mapping[str, Mapping[str, Any]], metadata: Mapping[str, Any], directory: Path
) -> str:
    """Return the file's text: JSON, a line for each entry, which is quick to read and YAML too."""
    lines: dict[str, list[str]] = {"entries": [], "data": []}
    for name, each in entries.items():
        key = key_of(name)
        url = HERE + relative(Path(each["path"]), directory)
        suffix = Path(each["path"]).suffix
        data, entry = described(suffix, each["metadata"]["kind"], key, url)
        entry["metadata"] = each["metadata"]
        lines["entries"].append(f"{as_json(name)}: {as_json(entry)}")
        lines["data"].append(f"{as_json(key)}: {as_json(data)}")
    # Intake iterates and counts aliases; without them a catalog looks empty to it.
    aliases = as_json({name: name for name in entries})
    return (
        f'{_BEGIN}\n{HEAD}{as_json(metadata)},\n"user_parameters": {{}},\n'
        f'"entries": {{\n{_block(lines["entries"])}}},\n'
        f'"data": {{\n{_block(lines["data"])}}},\n'
        f'"aliases": {aliases}}}\n'
    )


def _block(lines: list[str]) -> str:
    return ",\n".join(lines) + ("\n" if lines else "")


def open_catalog(
    path: str | Path | Sequence[str | Path], *, allow_outside: bool = False
) -> Catalog:
    """Open a catalog file (a local path or any fsspec url). Nothing in it is run.

    Args:
        path: the file, or a directory (or its url) with a `catalog.yml`. Several of them, of
            different studies, are opened as one catalog: the name of each entry begins with that of
            its study, which is also the facet `study`. Studies of one name are numbered in their
            order.
        allow_outside: whether its entries may lead out of the study's directory, which is that of
            the catalog, or the one around it where that is a folder named `catalog`. For catalogs
            that you made or trust.

    Raises:
        UserError: there is no such file, or it is not an Intake 2 catalog of this package.

    Example:
        >>> catalog = bc.open_catalog("catalog.yml")
        >>> ds = catalog.one(kind="svd").read()
        >>> ds["S"].dims
        ('prompt', 'pair', 'block', 'k')
    """
    if isinstance(path, str | Path):
        return _open(catalog_in(path), allow_outside)
    files = [catalog_in(file) for file in path]
    opened = [_open(file, allow_outside) for file in files]
    if len(opened) == 1:
        return opened[0]
    sources = [
        _source(file, each, {name: (each, name) for name in each})
        for file, each in zip(files, opened, strict=True)
    ]
    entries, problems = put_together(sources)
    if problems:
        raise UserError("\n".join(problems))
    return Catalog.of_several(entries, allow_outside=allow_outside)


def _open(path: str | Path, allow_outside: bool) -> Catalog:
    with _without_collecting():
        return _opened(os.fspath(path), allow_outside)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Keep Python from looking for garbage while millions of objects are made, which all stay."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def _opened(url: str, allow_outside: bool) -> Catalog:
    text = _text_of(url)
    content = parse(text, f"{url} is not YAML, or damaged, so no catalog")
    if not isinstance(content, dict) or content.get("version") != 2:
        raise UserError(f"{url} is not an Intake 2 catalog; `blockcoupling catalog` writes one")
    for section in ("entries", "data", "metadata"):
        if not isinstance(content.get(section), dict):
            raise UserError(f"{url} is damaged: it has no {section}; {_AGAIN}")
    entries = {
        name: (_metadata(url, name, entry), _url(content["data"].get(key_of(name))))
        for name, entry in content["entries"].items()
    }
    return Catalog.of(entries, content["metadata"], url, allow_outside=allow_outside)


def _metadata(catalog: str, name: str, entry: Any) -> dict[str, Any]:
    metadata = entry.get("metadata") if isinstance(entry, Mapping) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("kind"), Facet):
        raise UserError(f"{catalog} is damaged: the entry {name} has no kind; {_AGAIN}")
    return metadata


def _url(file: Any) -> Any:
    arguments = file.get("kwargs") if isinstance(file, Mapping) else None
    return arguments.get("url") if isinstance(arguments, Mapping) else None


_AGAIN = "remove it and run the study again, which joins the entries again"


def _text_of(url: str) -> str:
    missing = f"no catalog at {url}: `make demo` (or snakemake with your config) makes it"
    if "://" not in url:
        if not Path(url).exists():
            raise UserError(missing)
        return read_text(Path(url), "the catalog")
    try:
        with fsspec.open(url, mode="rt", encoding="utf-8") as stream:
            text: str = stream.read()
    except FileNotFoundError as error:
        raise UserError(missing) from error
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot read the catalog {url}: {error}") from error
    return text
