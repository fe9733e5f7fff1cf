"""Copies of a study's artifacts without what is private, and the catalog of the copies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from blockcoupling.catalog.catalog import Catalog
from blockcoupling.catalog.entries import MADE
from blockcoupling.catalog.plain import relative
from blockcoupling.errors import UserError
from blockcoupling.progress import Progress
from blockcoupling.publish.private import Private, absolute_paths
from blockcoupling.store.checksums import DIGEST, consolidate, digest, is_whole, seal, verify

LEFT_OUT = ("report", "explorer")
"""Kinds that show where and how a study was made; the explorer is made again."""
FOLDER = "artifacts"
TEXTS = (".json", ".jsonl", ".html", ".svg")


def published(catalog: Catalog) -> dict[str, Path]:
    """Return where the artifacts that are published lie, by the names of their entries.

    Raises:
        UserError: there is none, or one is gone, or not what was entered.
    """
    sources = {}
    for name in catalog:
        if catalog.entries[name].metadata["kind"] not in LEFT_OUT:
            catalog[name].check(name)
            sources[name] = catalog.path(name)
    if not sources:
        raise UserError("nothing to publish: the catalog has no artifact")
    return sources


def paths_in(catalog: Catalog, sources: Mapping[str, Path]) -> set[str]:
    """Return the absolute paths that artifacts and their entries say."""
    return set().union(*_paths(catalog, sources))


def _paths(catalog: Catalog, sources: Mapping[str, Path]) -> Iterator[set[str]]:
    for name, path in sources.items():
        yield absolute_paths(catalog.entries[name].metadata)
        if path.suffix == ".json":
            yield absolute_paths(json.loads(path.read_bytes()))
        elif path.suffix == ".zarr":
            yield absolute_paths(json.loads((path / "zarr.json").read_bytes())["attributes"])


def copy(
    catalog: Catalog, sources: Mapping[str, Path], private: Private, directory: Path
) -> dict[str, dict[str, Any]]:
    """Copy artifacts into `directory/artifacts/NAME`.

    Returns:
        The entries of the copies, `path` and `metadata` by name, as `write_catalog` takes them.

    Raises:
        MeasurementError: a store is damaged.
    """
    copies: dict[str, Path] = {}
    digests: dict[str, str] = {}
    with Progress(len(sources), "publishing", "artifact") as progress:
        for name, source in sources.items():
            copies[name] = directory / FOLDER / f"{name}{source.suffix}"
            copies[name].parent.mkdir(parents=True, exist_ok=True)
            _copy(source, copies[name], private)
            digests[name] = digest(copies[name])
            progress.advance()
    where = {str(source.resolve()): copies[name] for name, source in sources.items()}
    given = {name: catalog.entries[name].metadata for name in sources}
    instead = {str(about.get("digest")): digests[name] for name, about in given.items()}
    entries = {}
    for name, path in copies.items():
        about = dict(given[name])
        made = about.pop(MADE, None)
        about = private.cleaned(about) | {"digest": digests[name]}
        if made is not None:
            inputs = made.get("inputs", {})
            near = sources[name].parent
            kept = {role: _input(each, near, path, where, instead) for role, each in inputs.items()}
            about[MADE] = private.cleaned({**made, "inputs": {}}) | {"inputs": kept}
        entries[name] = {"path": str(path), "metadata": about}
    return entries


def _input(
    given: Mapping[str, str],
    near: Path,
    artifact: Path,
    where: Mapping[str, Path],
    digests: Mapping[str, str],
) -> dict[str, str]:
    """Return an input seen from the copy of what was made of it; of one that is not, its name."""
    source = str((near / given["path"]).resolve())
    copied = where.get(source)
    path = relative(copied, artifact.parent) if copied else Path(source).name
    return {**given, "path": path, "digest": digests.get(given["digest"], given["digest"])}


def _copy(source: Path, target: Path, private: Private) -> None:
    if source.suffix == ".zarr":
        if not is_whole(source):
            verify(source)  # says what is damaged; older stores have no seal
        shutil.copytree(source, target)
        _clean_attributes(target, private)
    elif source.suffix in TEXTS:
        target.write_text(private.clean(source.read_text(encoding="utf-8")), encoding="utf-8")
    elif source.suffix == ".parquet":
        table = pd.read_parquet(source)
        cleaned = _cleaned(table, private)
        if cleaned is table:
            shutil.copyfile(source, target)
        else:
            cleaned.to_parquet(target, index=False, write_page_checksum=True)
    else:
        shutil.copyfile(source, target)


def _cleaned(table: pd.DataFrame, private: Private) -> pd.DataFrame:
    changed: dict[str, pd.Series] = {}
    for column in table.select_dtypes(include=["object", "string"]):
        new = table[column].map(private.clean, na_action="ignore")
        if not new.equals(table[column]):
            changed[str(column)] = new
    return table.assign(**changed) if changed else table


def _clean_attributes(store: Path, private: Private) -> None:
    """Clean the attributes of a store's root, seal it again, and have it readable by http."""
    root = store / "zarr.json"
    content = json.loads(root.read_bytes())
    given = content["attributes"]
    attributes = private.cleaned(given)
    if attributes != given:
        root.write_text(json.dumps({**content, "attributes": attributes}))
    if attributes != given and DIGEST in given:
        seal(store)
    elif "consolidated_metadata" not in content:
        consolidate(store)
