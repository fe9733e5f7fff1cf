"""What an extraction store holds: one table of variables, checked on writing and on reading.

The same in words, with the meaning of each axis: docs/schema.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.errors import MeasurementError, UserError

SCHEMA_VERSION = 1


class SchemaError(UserError):
    """A dataset is not what the schema says; the message lists every difference."""


@dataclass(frozen=True)
class Variable:
    """One line of the schema: named axes, the data types it may have, and what it means."""

    dims: tuple[str, ...]
    dtypes: tuple[str, ...]
    meaning: str
    optional: bool = False
    undefined: bool = False
    """Whether it is NaN where it does not apply, as well as in padding."""


_BLOCK = ("prompt", "pair", "block")
_PRODUCT = (*_BLOCK, "block_other", "k", "k_other")
_VECTORS = (*_BLOCK, "embed", "k")

VARIABLES = {
    "S": Variable((*_BLOCK, "k"), ("float32",), "singular values of J, descending"),
    "U": Variable(_VECTORS, ("float32", "float16"), "left singular vectors of J", optional=True),
    "V": Variable(_VECTORS, ("float32", "float16"), "right singular vectors of J", optional=True),
    "A": Variable(_PRODUCT, ("float32",), "A[i, j] = U_jᵀ J_i V_j, i = block, j = block_other"),
    "A_swapped": Variable(_PRODUCT, ("float32",), "V_jᵀ J_i U_j, for `swapped`", optional=True),
    **{
        name: Variable(_PRODUCT, ("float32",), each.formula.split(",")[0], optional=True)
        for name, each in OVERLAPS.items()
    },
    "S_full": Variable((*_BLOCK, "k_full"), ("float32",), "all singular values", optional=True),
    "jacobian_norm": Variable(_BLOCK, ("float64",), "‖J‖_F"),
    "jacobian_norm_error": Variable(
        _BLOCK,
        ("float64",),
        "standard error of ‖J‖_F, 0 where it is exact",
        optional=True,
    ),
    "products": Variable(
        _BLOCK, ("float32",), "products with J or Jᵀ that the block took", optional=True
    ),
    "matmul_error": Variable(
        _BLOCK,
        ("float32",),
        "relative error of products of lower precision than float32, where asked for",
        optional=True,
    ),
    "matrix_free": Variable(
        _BLOCK, ("float32",), "1: found by block Krylov, 0: from the dense J", optional=True
    ),
    "context_apart": Variable(
        _BLOCK,
        ("float32",),
        "1: context held constant beside the token, 0: the block's own attention",
        optional=True,
    ),
    "svd_residual": Variable(_BLOCK, ("float32",), "max over k of ‖J v_k − s_k u_k‖ / s_1"),
    "gram": Variable(
        ("prompt", "token", "state", "state_other"),
        ("float64",),
        "inner products of (x^0, δ^1 … δ^L)",
    ),
    "pca": Variable(
        ("prompt", "token", "state", "component"),
        ("float32",),
        "x^0 … x^L on the principal components of the prompt's last states",
        optional=True,
    ),
    "pca_explained": Variable(
        ("prompt", "component"), ("float32",), "explained-variance ratio", optional=True
    ),
    "cka": Variable(
        ("prompt", "block"),
        ("float64",),
        "linear CKA of a block's input and output over the prompt's tokens",
        optional=True,
        undefined=True,
    ),
    "rankme": Variable(
        ("prompt",),
        ("float64",),
        "RankMe, the effective rank of the tokens' last states",
        optional=True,
        undefined=True,
    ),
    "own_loss": Variable(
        ("prompt",),
        ("float64",),
        "the model's mean loss on the prompt's own tokens, nats a token",
        optional=True,
        undefined=True,
    ),
}

# Of each prompt as a whole; stores of older versions lack them.
OF_PROMPTS = ("cka", "rankme", "own_loss")

# Kept where a study asks for them, beside the others and without changing them.
ON_REQUEST = ("U", "V", "A_swapped", *OVERLAPS, "S_full")

COORDINATES = {
    "prompt": Variable(("prompt",), ("str",), "stable id of the prompt"),
    "pair": Variable(("pair",), ("int64",), "0 …"),
    "token_in": Variable(
        ("prompt", "pair"),
        ("int64",),
        "t1, 0-based; −1 where there is no pair, −2 for the mean over an image's patches",
    ),
    "token_out": Variable(("prompt", "pair"), ("int64",), "t2, alike"),
    "block": Variable(("block",), ("int64",), "1 … L"),
    "block_other": Variable(("block_other",), ("int64",), "1 … L"),
    "k": Variable(("k",), ("int64",), "1 … K_max"),
    "k_other": Variable(("k_other",), ("int64",), "1 … K_max"),
    "k_full": Variable(("k_full",), ("int64",), "1 … d", optional=True),
    "token": Variable(("token",), ("int64",), "position in the prompt, 0 …"),
    "token_text": Variable(("prompt", "token"), ("str",), "text of the token", optional=True),
    "tokens": Variable(("prompt",), ("int64",), "length of the prompt"),
    "last": Variable(
        ("prompt",),
        ("int64",),
        "the last token of the text itself, or the last patch; in causal models the last of all",
        optional=True,
    ),
    "state": Variable(("state",), ("int64",), "0 … L"),
    "state_other": Variable(("state_other",), ("int64",), "0 … L"),
    "component": Variable(("component",), ("int64",), "1, 2", optional=True),
}

# Where the counting coordinates start: blocks and singular values at 1, positions at 0.
_STARTS = {
    **dict.fromkeys(("block", "block_other", "k", "k_other", "k_full", "component"), 1),
    **dict.fromkeys(("pair", "token", "state", "state_other"), 0),
}

ATTRIBUTES = {
    "schema_version": "version of this schema",
    "blockcoupling_version": "version of the package that wrote the store",
    "model_id": "hub id or directory the weights came from",
    "revision": "revision of the weights, empty where there is none",
    "weight_dtype": "data type of the weights as loaded",
    "quantization": "quantization of the weights, empty where there is none",
    "attention": "attention implementation differentiated through",
    "method": "how the SVD was found: `dense` or `krylov`",
    "seed": "seed of everything random on the way, empty where nothing is",
    "torch_version": "version of torch",
    "transformers_version": "version of transformers",
}

# What stands where a shorter prompt has no token or no pair; floating-point variables hold NaN.
NO_PAIR = -1
MEAN = -2
"""Stands for both tokens where the mean over an image's patches was measured."""
PADDING = {"token_text": "", "token_in": NO_PAIR, "token_out": NO_PAIR}


def last_token(ds: xr.Dataset) -> xr.DataArray:
    """Return which token is the last of each prompt, (prompt): marks behind a text do not count."""
    return ds["last"] if "last" in ds.coords else ds["tokens"] - 1


def stamp() -> dict[str, int | str]:
    """Return the two attributes that every store carries: schema and package version."""
    return {"schema_version": SCHEMA_VERSION, "blockcoupling_version": version("blockcoupling")}


def plain(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes that every format of files can hold: where there is nothing, empty text."""
    return {name: "" if value is None else value for name, value in attributes.items()}


def demand_version(attributes: Mapping[Any, Any]) -> None:
    """Raise a SchemaError for a dataset of another version of the schema."""
    found = attributes.get("schema_version")
    if found != SCHEMA_VERSION:
        raise SchemaError(
            f"the dataset has schema_version {found!r}, and this version of blockcoupling reads "
            f"{SCHEMA_VERSION}: run the extraction again"
        )


def validate(ds: xr.Dataset) -> None:
    """Check names, axes, data types, counting coordinates and attributes; read no numbers.

    Raises:
        SchemaError: with one line for each thing that differs from the schema.
    """
    demand_version(ds.attrs)
    wrong = [*_wrong_variables(ds), *_wrong_axes(ds), *_missing_attributes(ds)]
    if wrong:
        raise SchemaError("the dataset does not follow the schema:\n- " + "\n- ".join(wrong))


def check_values(ds: xr.Dataset) -> None:
    """Check that every number is finite and that singular values descend from a positive one.

    All of them may be 0 where the whole Jacobian is.

    Only for a dataset of one prompt, which has no padding.

    Raises:
        MeasurementError: naming variable, prompt and, where there is one, the block.
    """
    for name, variable in VARIABLES.items():
        if name in ds:
            there = ds[name].notnull() & (abs(ds[name]) < np.inf)
            allowed = ds[name].isnull() & variable.undefined
            _demand(there | allowed, f"{name} is not finite", ds)
    # A Jacobian may be 0, of a block that does nothing; then there is nothing else in it, either.
    zero = (ds["S"] == 0).all("k") & (ds["jacobian_norm"] == 0) & (ds["svd_residual"] == 0)
    _demand((ds["S"].isel(k=0) > 0) | zero, "the Jacobian is exactly zero (S)", ds)
    _demand(ds["S"].diff("k") <= 0, "the singular values S do not descend", ds)


def combine(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join datasets along `prompt`, in the given order; shorter prompts are padded.

    Args:
        parts: datasets of the schema, from the same model and settings. Along `token` and `pair`
            they may have their own lengths: NaN (or `PADDING`) fills the rest.

    Raises:
        SchemaError: when the parts differ in their blocks, their K or their variables.
    """
    for part in parts[1:]:
        demand_alike(parts[0], part)
    return xr.concat(
        parts,
        "prompt",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="outer",
        fill_value=PADDING,
        combine_attrs="override",
    )


def demand_alike(first: xr.Dataset, second: xr.Dataset) -> None:
    """Raise a SchemaError when two datasets differ in their variables, blocks, K or embedding."""
    axes = sorted(map(str, set(first.dims) - {"prompt", "token", "pair"}))
    differences = [
        f"`{axis}` has {first.sizes[axis]} and {second.sizes.get(axis)} entries"
        for axis in axes
        if first.sizes[axis] != second.sizes.get(axis)
    ]
    if only_one := sorted(map(str, set(first.variables) ^ set(second.variables))):
        differences.append(f"only one of them has {', '.join(only_one)}")
    if differences:
        raise SchemaError(
            f"prompts {_ids(first)} and {_ids(second)} cannot stand in one store: "
            + "; ".join(differences)
        )


def _ids(ds: xr.Dataset) -> str:
    return ", ".join(map(str, ds["prompt"].values))


def _wrong_variables(ds: xr.Dataset) -> list[str]:
    table = VARIABLES | COORDINATES
    wrong = [f"{name}: not in the schema" for name in ds.variables if name not in table]
    for name, expected in table.items():
        if name not in ds.variables:
            if not expected.optional:
                wrong.append(f"{name}: missing, expected ({', '.join(expected.dims)})")
            continue
        variable = ds.variables[name]
        if variable.dims != expected.dims:
            wrong.append(
                f"{name}: axes ({', '.join(map(str, variable.dims))}), "
                f"expected ({', '.join(expected.dims)})"
            )
        if (found := _type_name(variable.dtype)) not in expected.dtypes:
            wrong.append(f"{name}: data type {found}, expected {' or '.join(expected.dtypes)}")
    if ("U" in ds) != ("V" in ds):
        wrong.append("U, V: only one of them is there, expected both or neither")
    if 0 < sum(name in ds for name in OVERLAPS) < len(OVERLAPS):
        wrong.append(f"{', '.join(OVERLAPS)}: only some of them are there, expected all or none")
    return wrong


def _type_name(dtype: np.dtype) -> str:
    return "str" if dtype.kind in "OTU" else str(dtype)


def _wrong_axes(ds: xr.Dataset) -> list[str]:
    wrong = []
    for name, start in _STARTS.items():
        if name in ds.indexes:
            counted = np.arange(start, start + ds.sizes[name])
            if not np.array_equal(ds.indexes[name], counted):
                wrong.append(f"{name}: expected to count {start}, {start + 1}, …")
    if "prompt" in ds.indexes and not ds.indexes["prompt"].is_unique:
        wrong.append("prompt: ids must differ from each other")
    sizes = ds.sizes
    if (blocks := sizes.get("block", 2)) < 2:
        wrong.append("block: coupling needs at least 2 blocks")
    for other, expected in {
        "block_other": blocks,
        "k_other": sizes.get("k"),
        "state": blocks + 1,
        "state_other": blocks + 1,
    }.items():
        if other in sizes and sizes[other] != expected:
            wrong.append(f"{other}: {sizes[other]} entries, expected {expected}")
    return wrong


def _missing_attributes(ds: xr.Dataset) -> list[str]:
    return [
        f"attribute {name}: missing, expected the {meaning}"
        for name, meaning in ATTRIBUTES.items()
        if name not in ds.attrs
    ]


def _demand(holds: xr.DataArray, complaint: str, ds: xr.Dataset) -> None:
    values = holds.values
    if values.all():
        return
    at = dict(zip(holds.dims, np.argwhere(~values)[0], strict=True))
    where = [f"prompt {ds['prompt'].values[at['prompt']]!s}"]
    where += [f"{name} {ds[name].values[at[name]]}" for name in ("block", "token") if name in at]
    raise MeasurementError(f"{complaint} at {', '.join(where)}")
