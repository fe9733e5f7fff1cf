"""The extraction store: singular triples of every block's residual Jacobian, prompt by prompt.

The meaning of each axis: docs/schema.md.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from blockcoupling.config.overlaps import CUMULATIVE, OVERLAPS
from blockcoupling.errors import MeasurementError
from blockcoupling.store.schema import Schema, Variable

_SHARD_BYTES = 4 * 2**20  # of the small variables, which share a shard between prompts

_BLOCK = ("prompt", "pair", "block")
_PRODUCT = (*_BLOCK, "block_other", "k", "k_other")
_VECTORS = (*_BLOCK, "embed", "k")

_READ = (*_BLOCK, "vector", "sign", "k_read", "rank")

OF_PARTS = {
    "attention": "the block's attention alone",
    "mlp": "the block's MLP alone",
    "detached": "the detached block",
}
"""What can be measured in addition to the block itself (`choices.PARTS`), for readers."""

# What is kept of each of them.
_MAIN = {
    "S": Variable((*_BLOCK, "k"), ("float32",), "singular values of J, descending"),
    "A": Variable(_PRODUCT, ("float32",), "U_jᵀ J_i V_j"),
    "jacobian_norm": Variable(_BLOCK, ("float64",), "‖J‖_F"),
    "svd_residual": Variable(_BLOCK, ("float32",), "max over k of ‖J v_k − s_k u_k‖ / s_1"),
}

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
    "eigenvalues": Variable(
        (*_BLOCK, "k_full"), ("complex64",), "all eigenvalues of J, largest first", optional=True
    ),
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
        "1: context constant, separate from the token; 0: the block's own attention",
        optional=True,
    ),
    "svd_residual": Variable(_BLOCK, ("float32",), "max over k of ‖J v_k − s_k u_k‖ / s_1"),
    "uv_cosine": Variable(
        (*_BLOCK, "k"),
        ("float32",),
        "cos(u_k, v_k): 1 where J stretches, −1 where it reverses",
        optional=True,
    ),
    **{
        f"{name}_{part}": replace(variable, meaning=f"{variable.meaning}, of {what}", optional=True)
        for part, what in OF_PARTS.items()
        for name, variable in _MAIN.items()
    },
    "S_cumulative": Variable(
        (*_BLOCK, "k"),
        ("float32",),
        "singular values of the cumulative Jacobian Π (I + J_l), l ≤ block",
        optional=True,
        undefined=True,
    ),
    **{
        name: Variable(_PRODUCT, ("float32",), each.formula, optional=True, undefined=True)
        for name, each in CUMULATIVE.items()
    },
    "readout_token": Variable(
        _READ, ("int32",), "ids of the top tokens of ±u_k and ±v_k", optional=True
    ),
    "readout_logit": Variable(_READ, ("float32",), "their logits", optional=True),
    "readout_text": Variable(
        (*_READ, "byte"), ("uint8",), "their texts: UTF-8, filled up with zeros", optional=True
    ),
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

# Variables of whole prompts; stores of older versions lack them.
OF_PROMPTS = ("cka", "rankme", "own_loss")

CKA = {"cka_estimator": "debiased"}
"""Attribute of stores with the debiased `cka`; without it, `cka` is another, biased quantity."""

# Kept where a study asks for them; the others do not change.
OF_PART = {part: tuple(f"{name}_{part}" for name in _MAIN) for part in OF_PARTS}
"""The variables of each part."""

READOUT = ("readout_token", "readout_logit", "readout_text")
ON_REQUEST = (
    *("U", "V", "A_swapped", *OVERLAPS, "S_full", "eigenvalues", "S_cumulative", *CUMULATIVE),
    *(name for names in OF_PART.values() for name in names),
    *READOUT,
)

COORDINATES = {
    "prompt": Variable(("prompt",), ("str",), "stable id of the prompt"),
    "pair": Variable(("pair",), ("int64",), "0 …"),
    "token_in": Variable(
        ("prompt", "pair"),
        ("int64",),
        "t1, 0-based; −1 where there is no pair, −2 for the mean over an image's patches",
    ),
    "token_out": Variable(("prompt", "pair"), ("int64",), "t2, in the same way"),
    "block": Variable(("block",), ("int64",), "1 … L"),
    "block_other": Variable(("block_other",), ("int64",), "1 … L"),
    "k": Variable(("k",), ("int64",), "1 … K_max"),
    "k_other": Variable(("k_other",), ("int64",), "1 … K_max"),
    "k_full": Variable(("k_full",), ("int64",), "1 … d", optional=True),
    "vector": Variable(("vector",), ("str",), "U, V: which singular vector is read", optional=True),
    "sign": Variable(("sign",), ("int64",), "1, −1: its sign", optional=True),
    "k_read": Variable(("k_read",), ("int64",), "1 …: those that are read", optional=True),
    "rank": Variable(("rank",), ("int64",), "1 …, from the largest logit", optional=True),
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
    **dict.fromkeys(("k_read", "rank"), 1),
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

# Where a shorter prompt has no token or no pair; floating-point variables are NaN there.
NO_PAIR = -1
MEAN = -2
"""Both tokens where the mean over an image's patches was measured."""
PADDING = {
    "token_text": "",
    **dict.fromkeys(("token_in", "token_out", "readout_token"), NO_PAIR),
    "readout_text": 0,
}


def last_token(ds: xr.Dataset) -> xr.DataArray:
    """Return the last token of each prompt's text, (prompt), without special tokens after it."""
    return ds["last"] if "last" in ds.coords else ds["tokens"] - 1


def check_values(ds: xr.Dataset) -> None:
    """Check that every number is finite and that singular values descend from a positive one.

    All singular values may be 0 where the whole Jacobian is. The dataset is of one prompt, which
    has no padding.

    Raises:
        MeasurementError: naming variable, prompt and, if there is one, the block.
    """
    for name, variable in VARIABLES.items():
        if name in ds:
            values = ds[name].values
            finite = np.isfinite(values)
            allowed = finite | np.isnan(values) if variable.undefined else finite
            _demand(allowed, ds[name].dims, f"{name} is not finite", ds)
    for of in ("", *(f"_{part}" for part in OF_PARTS if f"S_{part}" in ds)):
        s = ds[f"S{of}"].values
        # A block may have a zero Jacobian; then everything else about it is zero, too.
        zero = (ds[f"jacobian_norm{of}"].values == 0) & (ds[f"svd_residual{of}"].values == 0)
        zero &= (s == 0).all(-1)
        axes = ds[f"S{of}"].dims
        _demand((s[..., 0] > 0) | zero, axes[:-1], f"the Jacobian is exactly zero (S{of})", ds)
        _demand(np.diff(s) <= 0, axes, f"the singular values S{of} do not descend", ds)


def _demand(holds: np.ndarray, axes: tuple, complaint: str, ds: xr.Dataset) -> None:
    if holds.all():
        return
    at = dict(zip(axes, np.argwhere(~holds)[0], strict=True))
    where = [f"prompt {ds['prompt'].values[at['prompt']]!s}"]
    where += [f"{name} {ds[name].values[at[name]]}" for name in ("block", "token") if name in at]
    raise MeasurementError(f"{complaint} at {', '.join(where)}")


def _rules(ds: xr.Dataset) -> list[str]:
    """Return which axes do not count as they should, and which variables lack their partners."""
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
    if ("U" in ds) != ("V" in ds):
        wrong.append("U, V: only one of them is there, expected both or neither")
    cumulative = ("S_cumulative", *CUMULATIVE)
    for together in (tuple(OVERLAPS), cumulative, READOUT, *OF_PART.values()):
        if 0 < sum(name in ds for name in together) < len(together):
            listed = ", ".join(together)
            wrong.append(f"{listed}: only some of them are there, expected all or none")
    return wrong


def _layout(data: xr.DataArray) -> dict[str, tuple[int, ...]]:
    """Return chunks and shards of a variable that has a prompt axis.

    A chunk is one prompt and pair; in products and vectors also one block, so that a block can be
    read alone. A shard (a file) of products and vectors holds one prompt, of the small variables
    several.
    """
    large = "k_other" in data.dims or "embed" in data.dims
    single = {"prompt", "pair", "block"} if large else {"prompt", "pair"}
    chunks = tuple(1 if dim in single else size for dim, size in data.sizes.items())
    prompts, *rest = data.shape
    together = 1 if large else max(1, _SHARD_BYTES // (data.dtype.itemsize * math.prod(rest)))
    return {"chunks": chunks, "shards": (min(prompts, together), *rest)}


SVD = Schema(
    what="an extraction store",
    made_by="the extraction",
    along="prompt",
    ragged=("token", "pair"),
    padding=PADDING,
    variables=VARIABLES,
    coordinates=COORDINATES,
    attributes=ATTRIBUTES,
    on_request=ON_REQUEST,
    rules=_rules,
    check_values=check_values,
    layout=_layout,
    chunks={"prompt": 1, "pair": 1, "block": -1},
)


def open_store(path: Path | str, together: Callable[[float], int] | None = None) -> xr.Dataset:
    """Open an extraction store lazily: one Dask chunk a prompt and pair, with all blocks.

    Args:
        path: the store.
        together: number of prompts in a chunk as a function of the bytes of A of one; None: one.

    Raises:
        UserError: there is no Zarr store at `path`.
        SchemaError: the store does not follow the schema.
        MeasurementError: it is damaged.

    Example:
        >>> ds = bc.open_store("coupling/step1/svd.zarr")
        >>> ds["S"].dims
        ('prompt', 'pair', 'block', 'k')
    """

    def chunks(ds: xr.Dataset) -> dict[str, int]:
        prompts = 1
        if together is not None and "A" in ds:
            prompts = together(ds["A"].nbytes / (ds.sizes["prompt"] * ds.sizes["pair"]))
        return {"prompt": prompts, "pair": 1, "block": -1}

    return SVD.open(path, None if together is None else chunks)
