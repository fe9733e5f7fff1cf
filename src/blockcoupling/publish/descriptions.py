"""Descriptions of a published study for machines: Croissant 1.1 and RO-Crate 1.2."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blockcoupling.catalog.entries import MADE
from blockcoupling.digests import file_digest
from blockcoupling.publish.about import PAPER, About
from blockcoupling.publish.tables import Table

_CROISSANT = "http://mlcommons.org/croissant/"
_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty"),
    *("fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField"),
    *("path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
    *("separator", "source", "subField", "transform"),
)
_TYPES = {"int": "sc:Integer", "flo": "sc:Float", "boo": "sc:Boolean", "dat": "sc:DateTime"}


def croissant(about: About, tables: Sequence[Table], directory: Path) -> dict[str, Any]:
    """Return croissant.json: every table, with its columns.

    https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
    """
    context = {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": _CROISSANT,
        "dct": "http://purl.org/dc/terms/",
        "conformsTo": "dct:conformsTo",
        "rai": f"{_CROISSANT}RAI/",
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "data": {"@id": "cr:data", "@type": "@json"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        **{term: f"cr:{term}" for term in _TERMS},
    }
    return {
        "@context": context,
        "@type": "sc:Dataset",
        "conformsTo": f"{_CROISSANT}1.1",
        "name": about.title,
        "description": about.description,
        "license": about.license_url,
        "creator": [{"@type": "sc:Person", "name": name} for name in about.authors],
        "datePublished": about.date,
        "version": "1.0.0",
        "url": PAPER["url"],
        "citeAs": f"{', '.join(about.authors)}: {about.title}. {about.date}.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": each.path,
                "name": each.path,
                "contentUrl": each.path,
                "encodingFormat": "application/x-parquet",
                "sha256": file_digest(directory / each.path),
            }
            for each in tables
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": each.name,
                "name": each.name,
                "description": each.meaning,
                "field": [_field(each, column) for column in each.columns],
            }
            for each in tables
        ],
    }


def _field(table: Table, column: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{table.name}/{column}",
        "name": column,
        "description": table.of(column),
        "dataType": _TYPES.get(table.columns[column].lower()[:3], "sc:Text"),
        "source": {"fileObject": {"@id": table.path}, "extract": {"column": column}},
    }


def crate(
    about: About, entries: Mapping[str, Mapping[str, Any]], tables: Sequence[Table], directory: Path
) -> dict[str, Any]:
    """Return ro-crate-metadata.json: every artifact, and the command that made it.

    https://w3id.org/ro/crate/1.2
    """
    own = "https://pypi.org/project/blockcoupling/"
    files: list[dict[str, Any]] = []
    results: dict[str, list[str]] = defaultdict(list)
    for name, each in entries.items():
        path = Path(each["path"])
        folder = path.suffix == ".zarr"
        at = path.relative_to(directory).as_posix() + ("/" if folder else "")
        metadata = each["metadata"]
        made = metadata.get(MADE) or {}
        files.append(
            {
                "@id": at,
                "@type": "Dataset" if folder else "File",
                "name": name,
                "identifier": f"sha256:{metadata['digest']}",
                **({"description": " ".join(made["command"])} if made.get("command") else {}),
            }
        )
        results[str(metadata.get("source", own))].append(at)
    files += [
        {"@id": each.path, "@type": "File", "name": each.name, "description": each.meaning}
        for each in tables
    ]
    libraries = _libraries(entries)
    people = [
        {"@id": f"#{name.replace(' ', '-')}", "@type": "Person", "name": name}
        for name in about.authors
    ]
    actions = [
        {
            "@id": f"#{verb.replace(' ', '-')}",
            "@type": "CreateAction",
            "name": verb,
            "instrument": [{"@id": own}, *({"@id": each["@id"]} for each in libraries)],
            "result": [{"@id": at} for at in made],
        }
        for verb, made in sorted(results.items())
    ]
    descriptor = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.2"},
    }
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": about.title,
        "description": about.description,
        "datePublished": about.date,
        "license": {"@id": about.license_url},
        "author": [{"@id": each["@id"]} for each in people],
        "hasPart": [{"@id": each["@id"]} for each in files],
        "mentions": [{"@id": each["@id"]} for each in actions],
    }
    software = {
        "@id": own,
        "@type": "SoftwareApplication",
        "name": "blockcoupling",
        "version": about.version,
    }
    licence = {"@id": about.license_url, "@type": "CreativeWork", "name": about.license}
    graph = [descriptor, root, licence, *people, software, *libraries, *actions, *files]
    return {"@context": "https://w3id.org/ro/crate/1.2/context", "@graph": graph}


def _libraries(entries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Libraries with every version that an artifact was made with."""
    made = [each["metadata"].get(MADE) or {} for each in entries.values()]
    pairs = {pair for each in made for pair in (each.get("libraries") or {}).items()}
    return [
        {
            "@id": f"#{name}-{version}",
            "@type": "SoftwareApplication",
            "name": name,
            "version": version,
        }
        for name, version in sorted(pairs)
    ]
