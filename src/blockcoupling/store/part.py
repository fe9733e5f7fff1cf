"""One part of a long job: the measurements of a prompt in one file with a checksum.

A file has three sections: the SHA-256 of all that follows it, a line of JSON (fingerprint,
attributes, and name, axes, data type and shape of every variable; texts are in it, too), and the
numbers of all variables one after another.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.errors import MeasurementError
from blockcoupling.store.part_names import part_path


@dataclass(frozen=True)
class Part:
    """A finished part: its header is in memory, its numbers are on disk."""

    path: Path
    header: Mapping[str, Any]
    start: int
    """Position of the first number in the file."""

    @property
    def fingerprint(self) -> str:
        """Digest of what the numbers depend on."""
        return str(self.header["fingerprint"])

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the dataset."""
        return dict(self.header["attributes"])

    @property
    def variables(self) -> Mapping[str, Mapping[str, Any]]:
        """Axes, data type and shape of every variable."""
        return self.header["variables"]

    @property
    def coordinates(self) -> xr.Dataset:
        """Coordinates and attributes, without the data variables."""
        return self._dataset([name for name, each in self.variables.items() if each["coordinate"]])

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every axis."""
        return {
            dim: size
            for each in self.variables.values()
            for dim, size in zip(each["dims"], each["shape"], strict=True)
        }

    def dataset(self) -> xr.Dataset:
        """Return everything that was measured."""
        return self._dataset(self.variables)

    def read(self, name: str) -> np.ndarray:
        """Return the values of one variable."""
        about = self.variables[name]
        if "text" in about:
            return np.array(about["text"], dtype=object).reshape(about["shape"])
        names = list(self.variables)
        before = sum(_nbytes(self.variables[other]) for other in names[: names.index(name)])
        count = math.prod(about["shape"])
        values = np.fromfile(self.path, about["dtype"], count, offset=self.start + before)
        return values.reshape(about["shape"])

    def _dataset(self, names: Sequence[str] | Mapping[str, Any]) -> xr.Dataset:
        read = {name: (self.variables[name]["dims"], self.read(name)) for name in names}
        coordinates = [name for name in names if self.variables[name]["coordinate"]]
        return xr.Dataset(read, attrs=self.attributes).set_coords(coordinates)


def write_part(parts_dir: Path | str, name: str, ds: xr.Dataset, fingerprint: str) -> Path:
    """Write a part, whole or not at all.

    Args:
        parts_dir: directory of the parts.
        name: name of the part.
        ds: what was measured, in memory.
        fingerprint: digest of what its numbers depend on; see `fingerprint`.
    """
    path = part_path(parts_dir, name)
    about, numbers = {}, []
    for variable, data in ds.variables.items():
        values = np.ascontiguousarray(data.values)
        about[str(variable)] = {
            "dims": data.dims,
            "shape": data.shape,
            "coordinate": variable in ds.coords,
        }
        if values.dtype.kind in "OTU":
            about[str(variable)]["text"] = [str(value) for value in values.flat]
        else:
            about[str(variable)]["dtype"] = values.dtype.str
            numbers.append(values)
    header = {"fingerprint": fingerprint, "attributes": ds.attrs, "variables": about}
    line = json.dumps(header, default=lambda value: value.tolist()).encode() + b"\n"
    digest = hashlib.sha256(line)
    for values in numbers:
        digest.update(values.data)
    with replacing(path) as fresh, fresh.open("wb") as stream:
        stream.write(digest.hexdigest().encode() + b"\n" + line)
        for values in numbers:
            stream.write(values.data)
    return path


def open_part(path: Path) -> Part:
    """Open a part and compare every byte of it with its checksum.

    Raises:
        MeasurementError: it is damaged.
        FileNotFoundError: it does not exist.
    """
    with path.open("rb") as stream:
        sealed = stream.readline()
        if hashlib.file_digest(stream, "sha256").hexdigest().encode() + b"\n" != sealed:
            raise MeasurementError(
                f"{path} is damaged: its bytes differ from those that were written. Remove it and "
                "run the same command again"
            )
        stream.seek(len(sealed))
        header = json.loads(stream.readline())
        return Part(path, header, stream.tell())


def _nbytes(about: Mapping[str, Any]) -> int:
    return 0 if "text" in about else math.prod(about["shape"]) * np.dtype(about["dtype"]).itemsize
