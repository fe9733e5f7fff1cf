"""Extraction stores on disk: a small one per prompt while measuring, one sharded one at the end.

A prompt's store appears under its name only when it is whole (written aside, then renamed), so
that a job killed at any instant continues with the prompts that are not there yet.
"""

import logging
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.errors import UserError
from blockcoupling.store.checksums import (
    attributes,
    check,
    every_chunk,
    reading,
    seal,
    without_seal,
    write_store,
)
from blockcoupling.store.example import example
from blockcoupling.store.parts import (
    demand_finished,
    fingerprint,
    finished,
    open_part,
    part_path,
    write_part,
)
from blockcoupling.store.schema import (
    ON_REQUEST,
    SCHEMA_VERSION,
    VARIABLES,
    SchemaError,
    check_values,
    combine,
    demand_alike,
    demand_version,
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

_SHARD_BYTES = 4 * 2**20  # of the small variables, which share a shard between prompts


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
    return write_part(parts_dir, str(ds["prompt"].item()), ds, fingerprint)


def merge(
    parts_dir: Path | str,
    out: Path | str,
    expected: Mapping[str, str],
    *,
    attributes: Mapping[str, Any] | None = None,
    optional: Sequence[str] | None = None,
) -> None:
    """Join the per-prompt stores into one sharded store, which replaces an older one.

    Prompts stand in the order of `expected` and are copied a shard at a time, so that memory does
    not grow with their number. The per-prompt stores are left where they are.

    Args:
        parts_dir: directory of the per-prompt stores.
        out: the store to write.
        expected: fingerprint by prompt id, as for `finished`.
        attributes: what the joined store says in place of its parts (names of the model, which
            decide no number).
        optional: which of the variables that are kept on request to take; None: all there are.

    Raises:
        UserError: when a prompt is missing, or two were measured with different settings.
    """
    demand_finished(parts_dir, expected, optional or ())
    named = plain(attributes or {})
    paths = [part_path(parts_dir, prompt) for prompt in expected]
    first = _open_prompt(paths[0], named, optional)
    coords = []
    for path in paths:
        part = _open_prompt(path, named, optional)
        demand_alike(first, part)
        _demand_same_attributes(first, part, parts_dir)
        coords.append(part.drop_vars(part.data_vars))
    logger.info("joining %d prompts into %s", len(paths), out)
    with replacing(out) as fresh:
        _create(fresh, first, combine(coords))
        for name in first.data_vars:
            _copy(str(name), paths, fresh)
        seal(fresh)


def open_store(path: Path | str, together: Callable[[float], int] | None = None) -> xr.Dataset:
    """Open a store lazily: one Dask chunk a prompt and pair, with all blocks; coords in memory.

    Args:
        path: of the store.
        together: how many prompts make a chunk, from the bytes of A of one; None: one.

    Raises:
        UserError: when there is no Zarr store at `path`.
        SchemaError: when the store is not what the schema says.
        MeasurementError: when it is damaged.
    """
    if not (Path(path) / "zarr.json").is_file():
        raise UserError(f"there is no store at {path}: run the extraction first")
    try:
        demand_version(attributes(path))
        check(path)
        with reading(path):
            ds = _lazy(path, 1)
            if together is not None and "A" in ds:
                each = ds["A"].nbytes / (ds.sizes["prompt"] * ds.sizes["pair"])
                ds = _lazy(path, together(each))
            ds = ds.assign_coords({name: coord.compute() for name, coord in ds.coords.items()})
        validate(ds)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error
    ds.attrs = without_seal(plain(ds.attrs))  # stores of earlier versions have nulls
    return ds[[name for name in VARIABLES if name in ds]]  # Zarr keeps no order


def _lazy(path: Path | str, prompts: int) -> xr.Dataset:
    chunks = {"prompt": prompts, "pair": 1, "block": -1}
    return xr.open_zarr(path, consolidated=False, chunks=chunks)


def _open_prompt(
    path: Path, attributes: Mapping[str, Any], optional: Sequence[str] | None
) -> xr.Dataset:
    """Open a part as it is to be joined: under these names, without what is not asked for."""
    ds = open_part(path)
    validate(ds)
    left_out = [] if optional is None else [name for name in ON_REQUEST if name not in optional]
    ds = ds.drop_vars(left_out, errors="ignore")
    ds = ds.drop_vars([name for name in ds.coords if not set(ds[name].dims) <= _axes(ds)])
    return ds.assign_attrs(attributes)


def _axes(ds: xr.Dataset) -> set[Hashable]:
    return {dim for data in ds.data_vars.values() for dim in data.dims}


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
        str(name): _layout(whole[name]) for name in whole.variables if "prompt" in whole[name].dims
    }
    write_store(whole.assign_attrs(first.attrs), path, encoding, numbers=False)


def _copy(name: str, parts: list[Path], out: Path) -> None:
    """Copy one variable of all parts into the merged store, a shard at a time, padded with NaN."""
    import zarr

    with every_chunk():  # what an array writes is settled when it is opened
        target = zarr.open_array(out / name, mode="r+")
    step = target.shards[0]
    for start in range(0, len(parts), step):
        some = parts[start : start + step]
        shard = np.full((len(some), *target.shape[1:]), np.nan, target.dtype)
        for place, part in enumerate(some):
            with reading(part):
                values = np.asarray(zarr.open_array(part / name, mode="r")[0])
            own: tuple[int | slice, ...] = (place, *map(slice, values.shape))
            shard[own] = values
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
