"""Write a published study: all or nothing, and nothing of the machine that it was made on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from blockcoupling.atomic import replacing
from blockcoupling.catalog import open_catalog
from blockcoupling.catalog.catalog import Catalog
from blockcoupling.catalog.catalog_file import COMBINED, FILE, write_catalog
from blockcoupling.catalog.studies import STUDY
from blockcoupling.digests import file_digest
from blockcoupling.errors import UserError
from blockcoupling.explore.export import write_export
from blockcoupling.publish import artifacts, descriptions, pages, tables
from blockcoupling.publish.about import About
from blockcoupling.publish.private import Private

MANIFEST = "MANIFEST.sha256"
_TEXTS = (*artifacts.TEXTS, ".md", ".yml", ".cff")


class Publication(NamedTuple):
    """What was published.

    Attributes:
        files: how many.
        bytes: how large they are together.
        tables: how many tables.
    """

    files: int
    bytes: int
    tables: int


def publish(catalogs: Sequence[str | Path], directory: Path, about: About) -> Publication:
    """Write a Hugging Face dataset directory that is a catalog, too.

    Args:
        catalogs: of one study or several, on this machine.
        directory: where it goes; one that was published before is replaced.
        about: who publishes it.

    Raises:
        UserError, MeasurementError: an artifact is gone or damaged, something would tell of this
            machine, or the directory has files that were not published.
    """
    catalog = open_catalog([str(each) for each in catalogs], allow_outside=True)
    demand_free(directory)
    sources = artifacts.published(catalog)
    private = Private(artifacts.paths_in(catalog, sources), catalog.study_directories())
    with replacing(directory) as fresh:
        fresh.mkdir()
        entries = artifacts.copy(catalog, sources, private, fresh)
        several = any(STUDY in each["metadata"] for each in entries.values())
        study = catalog.metadata.get("study")
        metadata = {
            "description": about.description,
            **({COMBINED: True} if several else {}),
            **({"study": study, "results": artifacts.FOLDER} if study else {}),
        }
        write_catalog(fresh / FILE, entries, metadata)
        written = tables.write(entries, fresh)
        opened = open_catalog(fresh)
        write_export([opened], [about.title], fresh / "explorer.html", title=about.title)
        for name, text in {
            "README.md": pages.readme(about, written, _facts(opened)),
            "CITATION.cff": pages.citation(about),
            "croissant.json": _json(descriptions.croissant(about, written, fresh)),
            "ro-crate-metadata.json": _json(descriptions.crate(about, entries, written, fresh)),
        }.items():
            (fresh / name).write_text(text, encoding="utf-8")
        files = _files(fresh)
        _demand_nothing_private(files, fresh, private)
        lines = [f"{file_digest(file)}  {file.relative_to(fresh).as_posix()}\n" for file in files]
        (fresh / MANIFEST).write_text("".join(lines), encoding="utf-8")
        size = sum(file.stat().st_size for file in files)
    return Publication(len(files) + 1, size, len(written))


def demand_free(directory: Path) -> None:
    """Refuse a directory with files that this verb did not write.

    Raises:
        UserError: naming one of them.
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise UserError(f"{directory} is a file: choose another name")
    listed = {MANIFEST}
    if (manifest := directory / MANIFEST).exists():
        listed |= {line.split("  ", 1)[1] for line in manifest.read_text().splitlines()}
    for file in _files(directory):
        if (name := file.relative_to(directory).as_posix()) not in listed:
            raise UserError(
                f"{directory} has {name}, which was not published: choose another directory, or "
                "remove it"
            )


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file())


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _facts(catalog: Catalog) -> str:
    """What was measured, as a sentence."""
    about = [each.metadata for each in catalog.entries.values()]
    found = {
        name: {str(each[name]) for each in about if name in each and each["kind"] != "figure"}
        for name in ("model", "dataset")
    }
    measured = Counter(each["kind"] for each in about)["svd"]
    counts = ", ".join(f"{len(found[name])} {name}s" for name in found if found[name])
    return f"It holds {counts or 'no models'} and {measured} measurements."


def _demand_nothing_private(files: Sequence[Path], directory: Path, private: Private) -> None:
    for file in files:
        if file.suffix in _TEXTS:
            name = file.relative_to(directory).as_posix()
            private.demand_none(file.read_text(encoding="utf-8"), name)
