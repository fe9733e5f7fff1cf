"""What a store holds, checked on writing and on reading.

A `Schema` is a table of variables with their axes. Each kind of store is one instance of it:
`store.svd.SVD`, `store.comparisons.COMPARISONS` and `store.damage.DAMAGE`. The meaning of the axes:
docs/schema.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from blockcoupling.computing import computed
from blockcoupling.errors import UserError
from blockcoupling.store.checksums import attributes, check, reading, without_seal
from blockcoupling.store.joining import join_parts
from blockcoupling.store.part import write_part
from blockcoupling.store.parts import open_parts

SCHEMA_VERSION = 1


class SchemaError(UserError):
    """A dataset does not follow the schema; the message lists every difference."""


@dataclass(frozen=True)
class Variable:
    """One line of a schema: named axes, allowed data types, and the meaning."""

    dims: tuple[str, ...]
    dtypes: tuple[str, ...]
    meaning: str
    optional: bool = False
    undefined: bool = False
    """Whether it is NaN where it does not apply, as well as in padding."""


@dataclass(frozen=True)
class Schema:
    """One kind of store.

    Attributes:
        what: name of the kind, with its article, for messages.
        made_by: what makes such a store, for messages.
        along: axis that parts are joined along.
        variables: data variables by name, in the order of the store.
        coordinates: coordinates by name.
        attributes: attributes that must be present, with their meaning.
        layout: chunks (and shards) of a variable of the joined store.
        ragged: other axes that may be shorter in some parts; NaN or `padding` fills the rest.
        padding: fill values of coordinates that are not floating-point numbers.
        on_request: variables that a part may have although they were not asked for.
        rules: further checks of names, axes and coordinates; returns what is wrong.
        check_values: check of all numbers of one part; raises a MeasurementError.
        chunks: Dask chunks on opening; None: the store is read into memory.
    """

    what: str
    made_by: str
    along: str
    variables: Mapping[str, Variable]
    coordinates: Mapping[str, Variable]
    attributes: Mapping[str, str]
    layout: Callable[[xr.DataArray], dict[str, tuple[int, ...]]]
    ragged: tuple[str, ...] = ()
    padding: Mapping[str, Any] = field(default_factory=dict)
    on_request: tuple[str, ...] = ()
    rules: Callable[[xr.Dataset], list[str]] = lambda ds: []
    check_values: Callable[[xr.Dataset], None] = lambda ds: None
    chunks: Mapping[str, int] | None = None

    def validate(self, ds: xr.Dataset) -> None:
        """Check names, axes, data types, coordinates and attributes; read no large variable.

        Raises:
            SchemaError: with one line for each difference from the schema.
        """
        demand_version(ds.attrs)
        table = {**self.variables, **self.coordinates}
        wrong = [f"{name}: not in the schema" for name in ds.variables if name not in table]
        for name, expected in table.items():
            wrong += _differences(name, expected, ds)
        wrong += self.rules(ds)
        wrong += [
            f"attribute {name}: missing, expected the {meaning}"
            for name, meaning in self.attributes.items()
            if name not in ds.attrs
        ]
        if wrong:
            raise SchemaError(f"this is not {self.what}:\n- " + "\n- ".join(wrong))

    def write(self, parts_dir: Path | str, name: str, ds: xr.Dataset, fingerprint: str) -> Path:
        """Write one part, whole or not at all.

        Args:
            parts_dir: directory of the parts.
            name: name of the part.
            ds: what was measured, in memory.
            fingerprint: digest of what its numbers depend on; see `parts.fingerprint`.

        Raises:
            SchemaError: the dataset does not follow the schema.
            MeasurementError: a number is not what it must be.
        """
        self.validate(ds)
        self.check_values(ds)
        return write_part(parts_dir, name, ds, fingerprint)

    def join(
        self,
        parts_dir: Path | str,
        out: Path | str,
        expected: Mapping[str, str],
        *,
        attributes: Mapping[str, Any] | None = None,
        optional: Sequence[str] | None = None,
    ) -> None:
        """Join parts into one store, which replaces an older one; then remove the parts.

        The numbers are copied a file at a time, so that memory does not grow with their number.

        Args:
            parts_dir: directory of the parts.
            out: the store to write.
            expected: fingerprint by name of a part, in the order of the joined store.
            attributes: attributes of the joined store that replace those of its parts (names of
                the model, which decide no number).
            optional: which variables of `on_request` to take; None: all that there are.

        Raises:
            UserError: a part is missing, or two were measured with different settings.
            MeasurementError: a part is damaged.
        """
        parts = dict(zip(expected, open_parts(parts_dir, expected, optional or ()), strict=True))
        for part in parts.values():
            demand_version(part.attributes)
        named = plain(attributes or {})
        join_parts(self, parts_dir, out, parts, attributes=named, optional=optional)

    def open(
        self, path: Path | str, chunks: Callable[[xr.Dataset], Mapping[str, int]] | None = None
    ) -> xr.Dataset:
        """Open a joined store; coordinates are in memory, numbers are read when needed.

        Args:
            path: the store.
            chunks: Dask chunks as a function of the opened store; None: those of the schema.

        Raises:
            UserError: there is no Zarr store at `path`.
            SchemaError: the store does not follow the schema.
            MeasurementError: it is damaged.
        """
        if not (Path(path) / "zarr.json").is_file():
            raise UserError(f"there is no store at {path}: run {self.made_by} first")
        try:
            demand_version(attributes(path))
            check(path)
            with reading(path):
                ds = self._open(path, self.chunks)
                if chunks is not None:
                    ds = self._open(path, chunks(ds))
            self.validate(ds)
        except SchemaError as error:
            raise SchemaError(f"{path}: {error}") from error
        return ds

    def _open(self, path: Path | str, chunks: Mapping[str, int] | None) -> xr.Dataset:
        lazily = None if chunks is None else dict(chunks)
        ds = xr.open_zarr(path, consolidated=False, chunks=lazily)
        ds = ds.load() if chunks is None else ds
        ds = ds.assign_coords({name: computed(each) for name, each in ds.coords.items()})
        if chunks is None:
            texts = [name for name, each in ds.coords.items() if each.dtype.kind in "TOU"]
            ds = ds.assign_coords({n: (ds[n].dims, ds[n].values.astype(object)) for n in texts})
        ds.attrs = without_seal(plain(ds.attrs))  # stores of earlier versions have nulls
        known = [name for name in self.variables if name in ds]  # Zarr keeps no order
        return ds[[*known, *(name for name in ds.data_vars if name not in known)]]

    def combine(self, parts: Sequence[xr.Dataset]) -> xr.Dataset:
        """Join datasets in memory, in the given order; shorter ones are padded.

        Raises:
            SchemaError: they differ in variables or axes.
        """
        for part in parts[1:]:
            self.demand_similar(parts[0], part)
        return xr.concat(
            parts,
            self.along,
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="outer",
            fill_value=dict(self.padding),
            combine_attrs="override",
        )

    def demand_similar(self, first: xr.Dataset, second: xr.Dataset) -> None:
        """Raise a SchemaError where two parts differ in their variables or in fixed axes."""
        fixed = sorted(map(str, set(first.dims) - {self.along, *self.ragged}))
        differences = [
            f"`{axis}` has {first.sizes[axis]} and {second.sizes.get(axis)} entries"
            for axis in fixed
            if first.sizes[axis] != second.sizes.get(axis)
        ]
        if only_one := sorted(map(str, set(first.variables) ^ set(second.variables))):
            differences.append(f"only one of them has {', '.join(only_one)}")
        if differences:
            raise SchemaError(
                f"prompts {_ids(first)} and {_ids(second)} cannot be in one store: "
                + "; ".join(differences)
            )


def _differences(name: str, expected: Variable, ds: xr.Dataset) -> list[str]:
    axes = ", ".join(expected.dims)
    if name not in ds.variables:
        return [] if expected.optional else [f"{name}: missing, expected ({axes})"]
    variable, wrong = ds.variables[name], []
    if variable.dims != expected.dims:
        found = ", ".join(map(str, variable.dims))
        wrong.append(f"{name}: axes ({found}), expected ({axes})")
    type_name = "str" if variable.dtype.kind in "OTU" else str(variable.dtype)
    if type_name not in expected.dtypes:
        allowed = " or ".join(expected.dtypes)
        wrong.append(f"{name}: data type {type_name}, expected {allowed}")
    return wrong


def _ids(ds: xr.Dataset) -> str:
    return ", ".join(dict.fromkeys(map(str, np.atleast_1d(ds["prompt"].values))))


def stamp() -> dict[str, int | str]:
    """Return the two attributes that every store carries: schema and package version."""
    return {"schema_version": SCHEMA_VERSION, "blockcoupling_version": version("blockcoupling")}


def plain(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes that every file format can hold: None becomes empty text."""
    return {name: "" if value is None else value for name, value in attributes.items()}


def demand_version(attributes: Mapping[Any, Any]) -> None:
    """Raise a SchemaError for a dataset of another version of the schema."""
    found = attributes.get("schema_version")
    if found != SCHEMA_VERSION:
        raise SchemaError(
            f"the dataset has schema_version {found!r}, and this version of blockcoupling reads "
            f"{SCHEMA_VERSION}: run the extraction again"
        )
