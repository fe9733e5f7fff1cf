"""Finding damage in a store.

Every chunk of every array carries a CRC-32C, which Zarr compares with the bytes it reads. It does
not cover metadata, nor missing chunks, which are read as fill values. So a finished store is
*sealed*: two attributes of its root are digests of its metadata and of its content.

- `metadata_digests`: of the root's other attributes and of each array's `zarr.json` (JSON text);
- `digest`: of all that and of every chunk. It changes with any number in the store, and so do the
  bytes of the root's `zarr.json`, which is what a workflow looks at.

Every chunk of a sealed store is written, even if it contains only padding: a missing chunk is lost,
not empty.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr

from blockcoupling.digests import file_digest, json_digest
from blockcoupling.errors import MeasurementError, UserError

ZARR: dict[str, Any] = {"zarr_format": 3, "consolidated": False}
DIGEST = "digest"
_METADATA = "metadata_digests"
SEAL = (DIGEST, _METADATA)
_ROOT = "."


def write_store(
    ds: xr.Dataset,
    path: Path,
    encoding: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    numbers: bool = True,
) -> None:
    """Write a dataset with a checksum in every chunk, and seal it.

    Args:
        ds: the dataset.
        path: of the store, which does not exist.
        encoding: chunks and shards by variable.
        numbers: whether to write the numbers too. If not, write them within `every_chunk` and
            call `seal` after that.
    """
    from zarr.codecs import Crc32cCodec, ZstdCodec

    checked = {
        "compressors": (ZstdCodec(level=0), Crc32cCodec()),
        # All chunks of an array in one directory: nested ones fill most of a small store.
        "chunk_key_encoding": {"name": "default", "separator": "."},
    }
    whole = {str(name): {**checked, **(encoding or {}).get(str(name), {})} for name in ds.variables}
    ds = ds.copy()
    ds.attrs = without_seal(ds.attrs)
    with every_chunk():
        if numbers:
            ds.to_zarr(path, encoding=whole, **ZARR)
            seal(path)
        else:
            ds.to_zarr(path, encoding=whole, compute=False, **ZARR)


@contextmanager
def every_chunk() -> Iterator[None]:
    """Have Zarr write chunks of fill values, too."""
    import zarr

    with zarr.config.set({"array.write_empty_chunks": True}):
        yield


def without_seal(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """The attributes that a store was given, without those that seal it."""
    return {name: value for name, value in attributes.items() if name not in SEAL}


def seal(path: Path) -> str:
    """Write into a finished store's root what it holds; return the root's own metadata.

    The metadata of all arrays are written there as well ("consolidated"), so that the store can be
    read over http, where directories cannot be listed.
    """
    root = path / "zarr.json"
    content = json.loads(root.read_text())
    content.pop("consolidated_metadata", None)
    attributes = without_seal(content["attributes"])
    content["attributes"] = attributes | {
        _METADATA: json.dumps(_metadata(path, attributes), sort_keys=True),
        DIGEST: _digest(path, attributes),
    }
    _write_root(path, content)
    return json.dumps(content)


def consolidate(path: Path) -> None:
    """Write the metadata of all arrays into a store's root, and nothing else of it."""
    _write_root(path, _read(path))


def _write_root(path: Path, content: dict[str, Any]) -> None:
    whole = content | {"consolidated_metadata": _consolidated(path)}
    (path / "zarr.json").write_text(json.dumps(whole))


def _consolidated(path: Path) -> dict[str, Any]:
    arrays = {name: _read(path / name) for name in _arrays(path)}
    return {"kind": "inline", "must_understand": False, "metadata": arrays}


def digest(path: Path | str) -> str:
    """A digest of what a file or a Zarr store holds: SHA-256, in hexadecimal digits.

    Args:
        path: of a file, of a store's directory, or of the `zarr.json` in it. A sealed store says
            its digest itself, and is not read.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    store = path.parent if path.name == "zarr.json" else path
    try:
        if not store.is_dir():
            return file_digest(path)
        held = attributes(store)
        return held.get(DIGEST) or _digest(store, held)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def check(path: Path | str) -> None:
    """Check a store's metadata, and that all of its chunks are there; read none of them.

    A store that is not sealed (of an earlier version) cannot be checked, and passes.

    Raises:
        MeasurementError: naming what is damaged or missing, and what to do.
    """
    _demand_none(_faults(Path(path)), path)


def verify(path: Path | str) -> None:
    """Check a store like `check`, and every byte of it.

    Raises:
        MeasurementError: naming what is damaged or missing, and what to do.
    """
    _demand_none(damage(path), path)


def damage(path: Path | str) -> list[str]:
    """What is wrong with a store, found by reading every byte of it; nothing where it is whole.

    Raises:
        MeasurementError: its `zarr.json` is not the metadata of a Zarr group.
    """
    path = Path(path)
    found = _faults(path) or _damaged_chunks(path)
    held = attributes(path)
    if not found and DIGEST in held and held[DIGEST] != _digest(path, held):
        return ["its chunks are not those that were written"]
    return found


def is_whole(path: Path | str) -> bool:
    """Whether a small store is sealed, and every byte of it as it was written."""
    path = Path(path)
    try:
        held = attributes(path)
        return not _faults(path) and held.get(DIGEST) == _digest(path, held)
    except (OSError, MeasurementError):
        return False


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn what Zarr raises over a damaged store, read lazily, into an error that names the damage.

    Raises:
        MeasurementError: something failed in the body, and the store is damaged.
    """
    try:
        yield
    except (UserError, MeasurementError):
        raise
    except Exception as error:
        try:
            verify(path)
        except MeasurementError as damage:
            raise damage from error
        raise


def attributes(store: Path | str) -> dict[str, Any]:
    """Return the attributes of the root.

    Raises:
        MeasurementError: its metadata cannot be read.
    """
    return dict(_root(store)["attributes"])


def _root(store: Path | str) -> dict[str, Any]:
    try:
        content = _read(Path(store))
        kind = (content["zarr_format"], content["node_type"])
        if kind == (3, "group") and isinstance(content["attributes"], dict):
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise _damaged(["zarr.json is not the metadata of a Zarr group"], store)


def _demand_none(faults: list[str], store: Path | str) -> None:
    if faults:
        raise _damaged(faults, store)


def _damaged(faults: list[str], store: Path | str) -> MeasurementError:
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    return MeasurementError(
        f"the store {store} is damaged: {'; '.join(faults[:3])}{more}. Remove it and make it "
        "again (in a study: remove it and run snakemake again)"
    )


def _faults(store: Path) -> list[str]:
    """What is wrong with a store's metadata, and chunks that are missing."""
    root = _root(store)
    held = root["attributes"]
    if _METADATA not in held:
        return []
    try:
        sealed = dict(json.loads(held[_METADATA]))
    except (ValueError, TypeError):
        return ["zarr.json was changed (its seal is broken)"]
    found = _metadata(store, without_seal(held))
    faults = []
    for name in sorted(sealed.keys() | found.keys()):
        file = "zarr.json" if name == _ROOT else f"{name}/zarr.json"
        if name not in found:
            faults.append(f"{file} is missing")
        elif found[name] != sealed.get(name):
            faults.append(f"{file} was changed")
    if not faults and root.get("consolidated_metadata") not in (None, _consolidated(store)):
        faults = ["zarr.json was changed (what it says of its arrays)"]
    return faults or [
        f"{name}/{chunk} is missing or empty"
        for name in _arrays(store)
        for chunk in _missing(store / name)
    ]


def _missing(array: Path) -> list[str]:
    """Files of chunks (or of shards) that an array should have, and has not.

    An empty file counts as missing: Zarr takes an empty shard for fill values.
    """
    there = {str(file.relative_to(array)) for file, _ in _chunks(array) if file.stat().st_size}
    content = _read(array)
    sizes = content["chunk_grid"]["configuration"]["chunk_shape"]
    counts = [math.ceil(n / size) for n, size in zip(content["shape"], sizes, strict=True)]
    places = itertools.product(*map(range, counts))
    named = (_separator(content).join(map(str, ("c", *place))) for place in places)
    return [name for name in named if name not in there]


def _damaged_chunks(store: Path) -> list[str]:
    """Chunks whose bytes are not those that were written, found by reading all of them."""
    import zarr

    faults = []
    for name in _arrays(store):
        array = zarr.open_array(store / name, mode="r")
        for file, place in _chunks(store / name):
            sizes = array.shards or array.chunks
            region = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, sizes, strict=True))
            try:
                array[region]
            except Exception as error:
                # Whatever a codec makes of bytes that are not its own.
                faults.append(f"{file.relative_to(store)} cannot be read ({error})")
    return faults


def _arrays(store: Path) -> list[str]:
    return sorted(file.parent.name for file in store.glob("*/zarr.json"))


def _read(node: Path) -> dict[str, Any]:
    """Metadata of a group or of an array."""
    content: dict[str, Any] = json.loads((node / "zarr.json").read_bytes())
    return content


def _separator(content: Mapping[str, Any]) -> str:
    """Separator of the numbers in the names of an array's chunks."""
    return str(content["chunk_key_encoding"]["configuration"]["separator"])


def _chunks(array: Path) -> list[tuple[Path, list[int]]]:
    """Files of chunks (or of shards), each with its place in the grid of chunks."""
    separator = _separator(_read(array))
    files = sorted(file for file in array.rglob("*") if file.is_file())
    named = ((file, str(file.relative_to(array)).split(separator)) for file in files)
    return [(file, [*map(int, place)]) for file, (first, *place) in named if first == "c"]


def _metadata(store: Path, attributes: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the root's attributes and of each array's metadata."""
    return {_ROOT: json_digest(without_seal(attributes))} | {
        name: file_digest(store / name / "zarr.json") for name in _arrays(store)
    }


def _digest(store: Path, attributes: Mapping[str, Any]) -> str:
    chunks = {
        str(file.relative_to(store)): file_digest(file)
        for name in _arrays(store)
        for file, _ in _chunks(store / name)
    }
    return json_digest([_metadata(store, attributes), chunks])
