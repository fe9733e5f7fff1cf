"""The store of damage: what every change of a model's blocks costs, text by text.

The axes in words: docs/schema.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.errors import UserError
from blockcoupling.store.checksums import check, reading, without_seal, write_store
from blockcoupling.store.part_names import part_path
from blockcoupling.store.parts import demand_finished, open_part, write_part
from blockcoupling.store.schema import SCHEMA_VERSION, SchemaError, plain

AXES: Mapping[str, tuple[str, ...]] = {
    "kl": ("prompt", "change"),
    "loss_change": ("prompt", "change"),
    "loss": ("prompt",),
    **dict.fromkeys(("prompt", "kind", "tokens"), ("prompt",)),
    **dict.fromkeys(("treatment", "block", "block_other", "reason"), ("change",)),
}


def validate(ds: xr.Dataset) -> None:
    """Check a dataset of damage: version, variables, axes, and that what is missing has a reason.

    Raises:
        SchemaError: saying what differs.
    """
    wrong = [
        f"{name}: expected ({', '.join(axes)})"
        for name, axes in AXES.items()
        if name not in ds.variables or ds[name].dims != axes
    ]
    if ds.attrs.get("schema_version") != SCHEMA_VERSION:
        wrong.append(f"schema_version is {ds.attrs.get('schema_version')!r}, not {SCHEMA_VERSION}")
    if not wrong:
        lacks = np.isnan(ds["kl"].values).any(0)
        if (lacks != (ds["reason"].values.astype(object) != "")).any():
            wrong.append("kl: missing without a reason, or there in spite of one")
    if wrong:
        raise SchemaError("not a store of damage:\n- " + "\n- ".join(wrong))


def open_damage(path: Path | str) -> xr.Dataset:
    """Open a store of damage, in memory (some kB a text).

    Raises:
        UserError: there is none, or it is something else.
        MeasurementError: it is damaged itself.
    """
    if not (Path(path) / "zarr.json").is_file():
        raise UserError(f"there is no store at {path}: run `blockcoupling damage` first")
    check(path)
    with reading(path):
        ds = xr.open_zarr(path, consolidated=False).load()
    ds.attrs = without_seal(ds.attrs)
    validate(ds)
    words = [name for name, data in ds.coords.items() if data.dtype.kind in "TOU"]
    return ds.assign_coords({n: (ds[n].dims, ds[n].values.astype(object)) for n in words})


def write_damage(parts_dir: Path | str, name: str, ds: xr.Dataset, fingerprint: str) -> Path:
    """Write what was measured on one text, whole or not at all.

    Raises:
        SchemaError: when the dataset is not one of damage.
    """
    validate(ds)
    return write_part(parts_dir, name, ds, fingerprint)


def join(parts: Sequence[xr.Dataset], order: Sequence[tuple[str, str]]) -> xr.Dataset:
    """Put texts beside each other.

    Args:
        parts: of one text each.
        order: (kind, name) of the texts, as they are to stand.
    """
    whole = xr.concat(parts, "prompt", combine_attrs="drop_conflicts")
    there = list(zip(whole["kind"].values, whole["prompt"].values, strict=True))
    return whole.isel(prompt=[there.index(text) for text in order])


def join_damage(
    parts_dir: Path | str,
    out: Path | str,
    expected: Mapping[str, str],
    order: Sequence[tuple[str, str]],
    *,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Join the parts of all texts into one store.

    Args:
        parts_dir: directory of the parts.
        out: the store to write.
        expected: fingerprint by name of a part.
        order: (kind, name) of the texts, as they are to stand.
        attributes: what the joined store says of the model.

    Raises:
        UserError: when a text is missing.
    """
    demand_finished(parts_dir, expected)
    parts = []
    for name in expected:
        with reading(path := part_path(parts_dir, name)):
            parts.append(open_part(path).load())
    whole = join(parts, order).assign_attrs(plain(attributes or {}))
    encoding = {str(name): {"chunks": data.shape} for name, data in whole.data_vars.items()}
    with replacing(out) as fresh:
        write_store(whole, fresh, encoding)
