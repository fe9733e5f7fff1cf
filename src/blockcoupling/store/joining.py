"""The parts of a job become one store.

The store is written under another name and renamed, and only then are the parts removed. A job
that is killed at any instant finds each finished prompt as a part or in the store.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.errors import UserError
from blockcoupling.store.checksums import every_chunk, seal, write_store
from blockcoupling.store.part import Part
from blockcoupling.store.parts import remove_joined

if TYPE_CHECKING:
    from blockcoupling.store.schema import Schema

logger = logging.getLogger(__name__)


def join_parts(
    schema: Schema,
    parts_dir: Path | str,
    out: Path | str,
    named: Mapping[str, Part],
    *,
    attributes: Mapping[str, Any],
    optional: Sequence[str] | None,
) -> None:
    """Join parts into one store and remove them; see `Schema.join`."""
    parts = list(named.values())
    dropped = [n for n in schema.on_request if optional is not None and n not in optional]
    coordinates = [_coordinates(part, dropped, attributes) for part in parts]
    first = _empty(parts[0], coordinates[0], dropped)
    for part, each in zip(parts[1:], coordinates[1:], strict=True):
        other = _empty(part, each, dropped)
        schema.demand_similar(first, other)
        _demand_same_attributes(first, other, parts_dir)
    logger.info("joining %d prompts into %s", len(parts), out)
    with replacing(out) as fresh:
        _create(schema, fresh, first, schema.combine(coordinates))
        for name in first.data_vars:
            _copy(str(name), parts, fresh, schema.padding.get(str(name), np.nan))
        root = seal(fresh)
    removable = {name for name, part in named.items() if not part.variables.keys() & set(dropped)}
    remove_joined(parts_dir, out, root, schema.along, named, removable)


def _coordinates(part: Part, dropped: Sequence[str], attributes: Mapping[str, Any]) -> xr.Dataset:
    """Return the coordinates of the variables that are joined, under the given attributes."""
    axes = {
        dim
        for name, each in part.variables.items()
        if not each["coordinate"] and name not in dropped
        for dim in each["dims"]
    }
    ds = part.coordinates
    return ds.drop_vars([n for n in ds.coords if not set(ds[n].dims) <= axes]).assign_attrs(
        attributes
    )


def _empty(part: Part, coordinates: xr.Dataset, dropped: Sequence[str]) -> xr.Dataset:
    """Return a part's dataset with variables of its axes and data types, without its numbers."""
    nothing = {
        name: (each["dims"], np.broadcast_to(np.zeros((), each["dtype"]), each["shape"]))
        for name, each in part.variables.items()
        if not each["coordinate"] and name not in dropped
    }
    return coordinates.assign(nothing)


def _demand_same_attributes(first: xr.Dataset, second: xr.Dataset, parts_dir: Path | str) -> None:
    names = sorted(set(first.attrs) | set(second.attrs))
    if differing := [name for name in names if first.attrs.get(name) != second.attrs.get(name)]:
        one, two = (str(np.atleast_1d(ds["prompt"].values)[0]) for ds in (first, second))
        raise UserError(
            f"prompts {one} and {two} in {parts_dir} were measured differently: "
            + "; ".join(
                f"{name} is {first.attrs.get(name)!r} and {second.attrs.get(name)!r}"
                for name in differing
            )
            + ". Remove that directory and run the extraction again"
        )


def _create(schema: Schema, path: Path, first: xr.Dataset, coordinates: xr.Dataset) -> None:
    """Write the coordinates of the joined store, and its variables without their numbers."""
    import dask.array

    whole, sizes = coordinates.copy(), {**first.sizes, **coordinates.sizes}
    for name, variable in first.data_vars.items():
        shape = tuple(sizes[dim] for dim in variable.dims)
        whole[name] = (variable.dims, dask.array.empty(shape, dtype=variable.dtype, chunks=-1))
    encoding = {
        str(name): schema.layout(whole[name])
        for name in whole.variables
        if schema.along in whole[name].dims
    }
    write_store(whole.assign_attrs(first.attrs), path, encoding, numbers=False)


def _copy(name: str, parts: Sequence[Part], out: Path, padding: float) -> None:
    """Copy one variable of all parts into the joined store, a file at a time, padded."""
    import zarr

    with every_chunk():  # this setting is read when the array is opened
        target = zarr.open_array(out / name, mode="r+")
    step, start, held = (target.shards or target.chunks)[0], 0, list[np.ndarray]()
    for row in chain.from_iterable(part.read(name) for part in parts):
        held.append(_padded(row, target.shape[1:], padding))
        if len(held) == step:
            target[start : start + step] = np.stack(held)
            start, held = start + step, []
    if held:
        target[start:] = np.stack(held)


def _padded(row: np.ndarray, shape: tuple[int, ...], padding: float) -> np.ndarray:
    if row.shape == shape:
        return row
    padded = np.full(shape, padding, row.dtype)
    padded[tuple(map(slice, row.shape))] = row
    return padded
