"""Payloads of two blocks: m at every prompt, and the products of singular vectors at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.config.variants import VARIANTS
from blockcoupling.errors import UserError
from blockcoupling.reduce.coupling import miscouplings

if TYPE_CHECKING:
    import xarray as xr

    from blockcoupling.catalog import Catalog

MOST_PROMPTS = 1500
"""Prompts whose m is shown, at most: the first ones of a store."""


def pair(
    catalog: Catalog, model: str, checkpoint: str, dataset: str, i: str, j: str
) -> dict[str, Any]:
    """Return m(i, j) at every prompt and position.

    Returns:
        `rows`: prompt, token_in, token_out of each; `m`: (row, variant, K), of all variants and K
        that the study reduced; `ks`, `variants`; `prompts`: how many the store has.

    Raises:
        UserError: the catalog has no store of this measurement, or no such blocks.
    """
    ds = store(catalog, model, checkpoint, dataset)
    blocks = _numbers(ds, i, j)
    kept = ds.isel(prompt=slice(MOST_PROMPTS))
    kept = kept.isel(block=list(blocks), block_other=list(blocks))
    ks, variants = reduced(catalog, ds, model, checkpoint, dataset)
    return {
        **of_rows(kept),
        "variants": variants,
        "ks": ks,
        "m": at_rows(kept, ks, variants)[..., 0, -1],
        "prompts": ds.sizes["prompt"],
    }


def products(
    catalog: Catalog, model: str, checkpoint: str, dataset: str, i: str, j: str, row: str
) -> dict[str, Any]:
    """Return what m of two blocks at one prompt is calculated from.

    Returns:
        `A`: U_jᵀ J_i V_j, (k, k'); `S`: singular values of both blocks, (2, k); the overlaps that
        the store has, (k, k'), by name.

    Raises:
        UserError: the catalog has no store of this measurement, or no such blocks or row.
    """
    ds = store(catalog, model, checkpoint, dataset)
    first, *_, second = _numbers(ds, i, j)
    count = ds.sizes["prompt"] * ds.sizes["pair"]
    if not (row.isdecimal() and int(row) < count):
        raise UserError(f"no row {row}: the store has {count} prompts and positions")
    at = dict(zip(("prompt", "pair"), divmod(int(row), ds.sizes["pair"]), strict=True))
    if "A" not in ds:
        raise UserError(f"the store of {model} {checkpoint} has no products A")
    own = ds.isel(at)
    names = [name for name in ("A", *OVERLAPS) if name in own]
    corner = own[names].isel(block=[first], block_other=[second]).load()
    arrays = {name: corner[name].to_numpy()[0, 0] for name in names}
    return products_of(arrays, own["S"].isel(block=[first, second]).to_numpy(), first, second)


def products_of(
    arrays: dict[str, np.ndarray], s: np.ndarray, first: int, second: int
) -> dict[str, Any]:
    """Return the payload :func:`products` of arrays in memory.

    Args:
        arrays: A and the overlaps of two blocks, by name.
        s: singular values of both, (2, k).
        first: position of block i.
        second: position of block j; composition asks what a block reads of an earlier one.
    """
    shown = [n for n in OVERLAPS if n in arrays and (not OVERLAPS[n].earlier or second < first)]
    return {"A": arrays["A"], "S": s, "overlaps": {name: arrays[name] for name in shown}}


def at_rows(
    ds: xr.Dataset, ks: Sequence[int], variants: Sequence[str]
) -> Float[np.ndarray, "row variant K i j"]:
    """Return m of all pairs of blocks at every prompt and pair of tokens."""
    named = miscouplings(ds, ks, variants)
    m = named.transpose("prompt", "pair", "variant", "K", "block", "block_other").to_numpy()
    return m.reshape(-1, *m.shape[2:])


def store(catalog: Catalog, model: str, checkpoint: str, dataset: str) -> xr.Dataset:
    """Return the store of a measurement, lazily.

    Raises:
        UserError: the catalog has none.
    """
    found = catalog.search(model=model, checkpoint=checkpoint, dataset=dataset)
    names = [name for name in found if found.entries[name].metadata["kind"] == "svd"]
    if not names:
        raise UserError(f"the catalog has no store of {model} {checkpoint} on {dataset}")
    # Without Dask: what is selected is read in one call, in place of a task for each prompt.
    ds: xr.Dataset = found[names[0]].read(chunks=None)
    return ds


def reduced(
    catalog: Catalog, ds: xr.Dataset, model: str, checkpoint: str, dataset: str
) -> tuple[list[int], list[str]]:
    """Return the K and variants that a measurement was reduced to; the store has all of them."""
    about = {"model": model, "checkpoint": checkpoint, "dataset": dataset}
    table = catalog.one(kind="miscoupling", **about).read(chunks=None)
    ks = [k for k in table["K"].to_numpy().tolist() if k <= ds.sizes["k"]]
    listed = [str(each) for each in table["variant"].to_numpy()]
    return ks, [name for name in listed if VARIANTS[name].product in ds]


def of_rows(ds: xr.Dataset) -> dict[str, Any]:
    """Return prompt, token_in and token_out of each prompt and pair of tokens, as `rows`."""
    pairs = ds.sizes["pair"]
    tokens = {
        name: np.broadcast_to(ds[name].to_numpy(), (ds.sizes["prompt"], pairs)).ravel().tolist()
        for name in ("token_in", "token_out")
    }
    prompts = np.repeat(ds["prompt"].to_numpy().astype(object), pairs)
    return {"rows": {"prompt": [str(each) for each in prompts], **tokens}}


def _numbers(ds: xr.Dataset, *blocks: str) -> list[int]:
    """Return the positions of blocks along the axis, each once.

    Raises:
        UserError: a block that the store has not.
    """
    known = ds["block"].to_numpy().tolist()
    if wrong := [each for each in blocks if not each.isdecimal() or int(each) not in known]:
        raise UserError(f"no block {wrong[0]}: the store has blocks {known[0]} to {known[-1]}")
    return list(dict.fromkeys(known.index(int(each)) for each in blocks))
