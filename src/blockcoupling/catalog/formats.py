"""The file formats of a catalog: how Intake describes each, and how this package reads it.

A catalog file describes an artifact by Intake's own readers (:func:`described`), so that plain
`intake.open_catalog` reads it. This package reads it by the function in this table, whatever a
catalog file says.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockcoupling.store.comparisons import COMPARISONS
from blockcoupling.store.damage import DAMAGE
from blockcoupling.store.schema import Schema
from blockcoupling.store.svd import SVD

SCHEMAS: Mapping[str, Schema] = {"svd": SVD, "token_products": COMPARISONS, "block_damage": DAMAGE}
"""The schema that stores of a kind are checked against."""

_READERS = "intake.readers.readers"
_TEXT, _BYTES = f"{_READERS}:FileTextReader", f"{_READERS}:FileByteReader"
_CALL = "intake.readers.convert:GenericFunc"


@dataclass(frozen=True)
class Format:
    """How files with one ending are read."""

    read: Callable[..., Any]
    """(path or fsspec url, kind, options) → the content."""
    datatype: str
    """Intake's name of such a file."""
    reader: str
    """Intake's reader of it."""
    result: str
    """Type of the content, as Intake writes it."""
    calls: tuple[Mapping[str, Any], ...] = ()
    """Functions that Intake calls on the file's text, with their options."""
    directory: bool = False


def _zarr(where: str, kind: str, **options: Any) -> Any:
    import xarray as xr

    from blockcoupling.store.checksums import check, reading, without_seal

    schema, local = SCHEMAS.get(kind), "://" not in where
    if schema is not None and local and not options:
        return schema.open(where)
    if local:
        check(where)
    chosen: dict[str, Any] = {"chunks": _chunks(kind), **options}
    store = where if local else _remote(where)
    with reading(where) if local else nullcontext():
        ds = xr.open_zarr(store, consolidated=False if local else None, zarr_format=3, **chosen)
    if schema is not None:
        schema.validate(ds)
    ds.attrs = without_seal(ds.attrs)
    return ds


def _remote(url: str) -> Any:
    from blockcoupling.store.remote import Remote

    return Remote.at(url)


def _chunks(kind: str) -> dict[str, int]:
    return dict(SCHEMAS[kind].chunks or {}) if kind in SCHEMAS else {}


def _parquet(where: str, kind: str, **options: Any) -> Any:
    import pandas as pd

    return pd.read_parquet(where, page_checksum_verification=True, **options)


def _json(where: str, kind: str) -> Any:
    return json.loads(_bytes(where, kind))


def _json_lines(where: str, kind: str) -> Any:
    import pandas as pd

    # dtype=False: an id such as "007" stays what it is.
    return pd.read_json(io.StringIO(_text(where, kind)), lines=True, dtype=False)


def _text(where: str, kind: str) -> str:
    return _bytes(where, kind).decode()


def _bytes(where: str, kind: str) -> bytes:
    if "://" not in where:
        return Path(where).read_bytes()
    import fsspec  # type: ignore[import-untyped]

    with fsspec.open(where, mode="rb") as stream:
        content: bytes = stream.read()
    return content


FORMATS: Mapping[str, Format] = {
    ".zarr": Format(
        _zarr, "Zarr", f"{_READERS}:XArrayDatasetReader", "xarray:Dataset", directory=True
    ),
    ".parquet": Format(_parquet, "Parquet", f"{_READERS}:PandasParquet", "pandas:DataFrame"),
    ".json": Format(
        _json, "JSONFile", _TEXT, "builtins:dict", calls=({"func": "{func(json:loads)}"},)
    ),
    ".jsonl": Format(
        _json_lines,
        "JSONFile",
        _TEXT,
        "pandas:DataFrame",
        calls=(
            {"func": "{func(io:StringIO)}"},
            {"func": "{func(pandas:read_json)}", "lines": True, "dtype": False},
        ),
    ),
    ".html": Format(_text, "Text", _TEXT, "builtins:str"),
    ".png": Format(_bytes, "PNG", _BYTES, "builtin:bytes"),
    ".pdf": Format(_bytes, "FileData", _BYTES, "builtin:bytes"),
    ".svg": Format(_bytes, "FileData", _BYTES, "builtin:bytes"),
}


def described(suffix: str, kind: str, key: str, url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how Intake describes one file: its data, and the reader of them.

    Args:
        suffix: one of :data:`FORMATS`.
        kind: of the entry.
        key: name of the file in the catalog.
        url: path of the file.
    """
    chosen = FORMATS[suffix]
    file: dict[str, Any] = {"url": url, "storage_options": None}
    options: dict[str, Any] = {}
    if chosen.directory:
        file["root"] = ""
        options["chunks"] = _chunks(kind)
    datatype = f"intake.readers.datatypes:{chosen.datatype}"
    data = {"datatype": datatype, "kwargs": file, "metadata": {}, "user_parameters": {}}
    source = {"data": f"{{data({key})}}"}
    reader, arguments = chosen.reader, {**source, **options}
    if chosen.calls:
        steps = [[f"{{func({chosen.reader})}}", [], source]]
        steps += [[f"{{func({_CALL})}}", [], dict(call)] for call in chosen.calls]
        results = ["builtins:str", *[chosen.result] * len(chosen.calls)]
        reader = "intake.readers.convert:Pipeline"
        arguments = {"steps": steps, "out_instances": results}
    return data, {
        "reader": reader,
        "kwargs": arguments,
        "output_instance": chosen.result,
        "user_parameters": {},
    }
