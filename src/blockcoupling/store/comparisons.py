"""The store of compared tokens: one entry a comparison of two Jacobians of one prompt.

The axes in words: docs/schema.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.errors import UserError
from blockcoupling.store.checksums import check, reading, without_seal, write_store
from blockcoupling.store.part_names import part_path
from blockcoupling.store.parts import demand_finished, open_part, write_part
from blockcoupling.store.schema import SCHEMA_VERSION, SchemaError, plain

PLACES = (
    "block",
    "block_other",
    "token_in",
    "token_out",
    "token_in_other",
    "token_out_other",
)
AXES: Mapping[str, tuple[str, ...]] = {
    "A": ("comparison", "k", "k_other"),
    "S": ("comparison", "k"),
    "svd_residual": ("comparison",),
    **dict.fromkeys(("prompt", "kind", *PLACES), ("comparison",)),
}
CHUNK = 2048  # comparisons that are read together


def validate(ds: xr.Dataset) -> None:
    """Check a dataset of comparisons: version, variables and axes.

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
    if wrong:
        raise SchemaError("not a store of compared tokens:\n- " + "\n- ".join(wrong))


def open_comparisons(path: Path | str) -> xr.Dataset:
    """Open a store of compared tokens lazily.

    Raises:
        UserError: there is none, or it is something else.
        MeasurementError: it is damaged.
    """
    if not (Path(path) / "zarr.json").is_file():
        raise UserError(f"there is no store at {path}: run `blockcoupling tokenwise` first")
    check(path)
    with reading(path):
        ds = xr.open_zarr(path, consolidated=False)
    ds.attrs = without_seal(ds.attrs)
    validate(ds)
    return ds


def write_comparisons(parts_dir: Path | str, name: str, ds: xr.Dataset, fingerprint: str) -> Path:
    """Write the comparisons of one prompt, whole or not at all.

    Raises:
        SchemaError: when the dataset is not one of comparisons.
    """
    validate(ds)
    return write_part(parts_dir, name, ds, fingerprint)


def join_comparisons(
    parts_dir: Path | str,
    out: Path | str,
    expected: Mapping[str, str],
    *,
    attributes: Mapping[str, Any] | None = None,
    swapped: bool = False,
) -> None:
    """Join parts along `comparison` (a few hundred bytes each, of a few prompts: in memory).

    Args:
        parts_dir: directory of the parts.
        out: the store to write.
        expected: fingerprint by prompt id, in the order to join.
        attributes: what the joined store says of the model.
        swapped: take V_jᵀ J_i U_j too.

    Raises:
        UserError: when a prompt is missing.
    """
    demand_finished(parts_dir, expected, ["A_swapped"] if swapped else [])
    parts = []
    for name in expected:
        with reading(path := part_path(parts_dir, name)):
            parts.append(open_part(path).load())
    if not swapped:
        parts = [part.drop_vars("A_swapped", errors="ignore") for part in parts]
    whole = xr.concat(parts, "comparison", combine_attrs="drop_conflicts")
    whole = whole.assign_attrs(plain(attributes or {}))
    size = min(CHUNK, whole.sizes["comparison"])
    encoding = {
        str(name): {"chunks": (size, *whole[name].shape[1:])}
        for name, data in whole.variables.items()
        if data.dims[:1] == ("comparison",)
    }
    with replacing(out) as fresh:
        write_store(whole, fresh, encoding)
