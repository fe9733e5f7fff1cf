"""Extraction stores on disk: a small one per prompt while measuring, one sharded one at the end.

A prompt's store appears under its name only when it is whole (written aside, then renamed), so
that a job killed at any instant continues with the prompts that are not there yet.
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.errors import UserError
from blockcoupling.store.example import example
from blockcoupling.store.schema import (
    SCHEMA_VERSION,
    VARIABLES,
    SchemaError,
    check_values,
    combine,
    demand_alike,
    plain,
    validate,
)

__all__ = [
    "SCHEMA_VERSION",
    "example",
    "fingerprint",
    "finished",
    "merge",
    "open_store",
    "validate",
    "write_prompt",
]

logger = logging.getLogger(__name__)

_ZARR: dict[str, Any] = {"zarr_format": 3, "consolidated": False}
_FINGERPRINT = "fingerprint"
_LONGEST_NAME = 200  # file systems allow 255 bytes; the rest is for prefix and suffix
_SHARD_BYTES = 4 * 2**20  # of the small variables, which share a shard between prompts


def fingerprint(**settings: Any) -> str:
    """Return a digest of everything that a prompt's numbers depend on (JSON values).

    That is what becomes the store's attributes, the settings that do not, and the prompt's text.
    """
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_prompt(parts_dir: Path | str, ds: xr.Dataset, fingerprint: str) -> Path:
    """Write the dataset of one prompt into `parts_dir`, whole or not at all.

    Args:
        parts_dir: directory of the per-prompt stores.
        ds: dataset of the schema with one prompt, in memory.
        fingerprint: of the settings, the model and the prompt's text; see `fingerprint`.

    Raises:
        SchemaError: when the dataset is not what the schema says.
        MeasurementError: when a number is not finite, or singular values are not as they must be.
    """
    validate(ds)
    check_values(ds)
    path = _part(parts_dir, str(ds["prompt"].item()))
    with replacing(path) as fresh:
        ds.assign_attrs({_FINGERPRINT: fingerprint}).to_zarr(
            fresh,
            encoding={name: {"chunks": data.shape} for name, data in ds.data_vars.items()},
            **_ZARR,
        )
    return path


def finished(parts_dir: Path | str, expected: Mapping[str, str]) -> set[str]:
    """Return the ids of the prompts that are measured, out of those expected.

    Args:
        parts_dir: directory of the per-prompt stores; it need not exist.
        expected: fingerprint by prompt id. A store with another fingerprint comes from other
            settings, other weights or another text: it is not counted, and a line is logged.
    """
    done = set()
    for prompt, wanted in expected.items():
        try:
            found = _read_fingerprint(_part(parts_dir, prompt))
        except FileNotFoundError:
            continue
        if found == wanted:
            done.add(prompt)
        else:
            logger.warning(
                "prompt %s: its store is damaged, or from other settings, weights or text; "
                "measuring it again",
                prompt,
            )
    return done


def merge(parts_dir: Path | str, out: Path | str, expected: Mapping[str, str]) -> None:
    """Join the per-prompt stores into one sharded store, which replaces an older one.

    Prompts stand in the order of `expected` and are copied a shard at a time, so that memory does
    not grow with their number. The per-prompt stores are left where they are.

    Args:
        parts_dir: directory of the per-prompt stores.
        out: the store to write.
        expected: fingerprint by prompt id, as for `finished`.

    Raises:
        UserError: when a prompt is missing, or two were measured with different settings.
    """
    done = finished(parts_dir, expected)
    if missing := [prompt for prompt in expected if prompt not in done]:
        raise UserError(
            f"{len(missing)} of {len(expected)} prompts are not measured yet, the first of them "
            f"is {missing[0]}: run the extraction again"
        )
    paths = [_part(parts_dir, prompt) for prompt in expected]
    first = _open_part(paths[0])
    coords = []
    for path in paths:
        part = _open_part(path)
        demand_alike(first, part)
        _demand_same_attributes(first, part, parts_dir)
        coords.append(part.drop_vars(part.data_vars))
    logger.info("joining %d prompts into %s", len(paths), out)
    with replacing(out) as fresh:
        _create(fresh, first, combine(coords))
        for name in first.data_vars:
            _copy(str(name), paths, fresh)


def open_store(path: Path | str) -> xr.Dataset:
    """Open a store lazily: one Dask chunk a prompt and pair, with all blocks; coords in memory.

    Raises:
        UserError: when there is no Zarr store at `path`.
        SchemaError: when the store is not what the schema says.
    """
    if not (Path(path) / "zarr.json").is_file():
        raise UserError(f"there is no store at {path}: run the extraction first")
    ds = xr.open_zarr(path, consolidated=False, chunks={"prompt": 1, "pair": 1, "block": -1})
    try:
        validate(ds)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error
    ds = ds.assign_coords({name: coord.compute() for name, coord in ds.coords.items()})
    ds.attrs = plain(ds.attrs)  # stores of earlier versions have nulls
    return ds[[name for name in VARIABLES if name in ds]]  # Zarr keeps no order


def _part(parts_dir: Path | str, prompt: str) -> Path:
    """Return where a prompt's store lies; any id makes a file name."""
    name = quote(prompt, safe=" ")
    if len(name) > _LONGEST_NAME:
        raise UserError(f"the prompt id {prompt!r} is too long for a file name: shorten it")
    return Path(parts_dir) / f"{name}.zarr"


def _read_fingerprint(part: Path) -> str | None:
    """Return the fingerprint of a part; None when its metadata cannot be read."""
    try:
        return json.loads((part / "zarr.json").read_text())["attributes"].get(_FINGERPRINT)
    except (ValueError, KeyError):
        return None


def _open_part(path: Path) -> xr.Dataset:
    """Open a part: numbers stay on disk, coords (small) come into memory."""
    ds = xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None, cache=False)
    validate(ds)
    del ds.attrs[_FINGERPRINT]
    for variable in ds.variables.values():
        variable.encoding = {}  # the merged store has a layout of its own
    for coord in ds.coords.values():
        coord.load()
    return ds


def _demand_same_attributes(first: xr.Dataset, second: xr.Dataset, parts_dir: Path | str) -> None:
    names = sorted(set(first.attrs) | set(second.attrs))
    if differing := [name for name in names if first.attrs.get(name) != second.attrs.get(name)]:
        raise UserError(
            f"prompts {first['prompt'].item()} and {second['prompt'].item()} in {parts_dir} were "
            "measured differently: "
            + "; ".join(
                f"{name} is {first.attrs.get(name)!r} and {second.attrs.get(name)!r}"
                for name in differing
            )
            + ". Remove that directory and run the extraction again"
        )


def _create(path: Path, first: xr.Dataset, coords: xr.Dataset) -> None:
    """Write the coords of the merged store, and its variables without their numbers."""
    import dask.array

    whole, sizes = coords.copy(), {**first.sizes, **coords.sizes}
    for name, variable in first.data_vars.items():
        shape = tuple(sizes[dim] for dim in variable.dims)
        whole[name] = (variable.dims, dask.array.empty(shape, dtype=variable.dtype, chunks=-1))
    encoding = {
        name: _layout(whole[name]) for name in whole.variables if "prompt" in whole[name].dims
    }
    whole.assign_attrs(first.attrs).to_zarr(path, compute=False, encoding=encoding, **_ZARR)


def _copy(name: str, parts: list[Path], out: Path) -> None:
    """Copy one variable of all parts into the merged store, a shard at a time, padded with NaN."""
    import zarr

    target = zarr.open_array(out / name, mode="r+")
    step = target.shards[0]
    for start in range(0, len(parts), step):
        some = parts[start : start + step]
        shard = np.full((len(some), *target.shape[1:]), np.nan, target.dtype)
        for padded, part in zip(shard, some, strict=True):
            values = zarr.open_array(part / name, mode="r")[0]
            padded[tuple(slice(size) for size in values.shape)] = values
        target[start : start + len(some)] = shard


def _layout(data: xr.DataArray) -> dict[str, tuple[int, ...]]:
    """Return chunks and shards of a variable that has a prompt axis.

    A chunk is one prompt and pair; of products and vectors, one block, so that a block can be read
    alone. A shard (a file) of those holds one prompt; of the small variables, several.
    """
    large = "k_other" in data.dims or "embed" in data.dims
    single = {"prompt", "pair", "block"} if large else {"prompt", "pair"}
    chunks = tuple(1 if dim in single else size for dim, size in data.sizes.items())
    prompts, *rest = data.shape
    together = 1 if large else max(1, _SHARD_BYTES // (data.dtype.itemsize * math.prod(rest)))
    return {"chunks": chunks, "shards": (min(prompts, together), *rest)}
