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
from blockcoupling.reduce.eigenvalues import departure_from_normality
from blockcoupling.reduce.readout import texts_of
from blockcoupling.store.svd import OF_PARTS

if TYPE_CHECKING:
    import xarray as xr

    from blockcoupling.catalog import Catalog

_SHOWN = (
    *("A", "S", *OVERLAPS, "uv_cosine", "eigenvalues", "jacobian_norm"),
    *(f"{name}_{part}" for part in OF_PARTS for name in ("A", "S")),
    *("readout_token", "readout_logit", "readout_text"),
)
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
    first, second = _numbers(ds, i, j)
    kept = ds.isel(prompt=slice(MOST_PROMPTS))
    ks, variants = reduced(catalog, ds, model, checkpoint, dataset)
    return {
        **of_rows(kept),
        "variants": variants,
        "ks": ks,
        "m": _of_two(kept, ks, variants, first, second),
        "prompts": ds.sizes["prompt"],
    }


def _of_two(
    ds: xr.Dataset, ks: Sequence[int], variants: Sequence[str], first: int, second: int
) -> Float[np.ndarray, "row variant K"]:
    """Return m of two blocks at every prompt and pair of tokens, reading one product of each.

    NaN, too, where the Jacobian of the second is 0: the kernel sees that of the first alone.
    """
    names = list(dict.fromkeys(VARIANTS[name].of_part("S") for name in variants))
    s = {name: ds[name].variable.load() for name in names}
    # Coordinates are of no use here, and each of them is a file for each prompt.
    bare = ds.drop_vars(list(ds.coords)).assign(s)
    corner = {"block": slice(first, first + 1), "block_other": slice(second, second + 1)}
    m = at_rows(bare.isel(corner), ks, variants)[..., 0, 0]
    for v, name in enumerate(variants):
        m[s[VARIANTS[name].of_part("S")].isel(block=second, k=0).to_numpy().ravel() == 0, v] = (
            np.nan
        )
    return m


def products(
    catalog: Catalog, model: str, checkpoint: str, dataset: str, i: str, j: str, row: str
) -> dict[str, Any]:
    """Return what m of two blocks at one prompt is calculated from.

    Returns:
        See :func:`products_of`.

    Raises:
        UserError: the catalog has no store of this measurement, or no such blocks or row.
    """
    ds = store(catalog, model, checkpoint, dataset)
    first, second = _numbers(ds, i, j)
    count = ds.sizes["prompt"] * ds.sizes["pair"]
    if not (row.isdecimal() and int(row) < count):
        raise UserError(f"no row {row}: the store has {count} prompts and positions")
    at = dict(zip(("prompt", "pair"), divmod(int(row), ds.sizes["pair"]), strict=True))
    if "A" not in ds:
        raise UserError(f"the store of {model} {checkpoint} has no products A")
    return products_of(shown(ds).isel(at), first, second)


def shown(ds: xr.Dataset) -> xr.Dataset:
    """Return the variables of a store that :func:`products_of` shows."""
    return ds[[name for name in _SHOWN if name in ds]]


def products_of(own: xr.Dataset, first: int, second: int) -> dict[str, Any]:
    """Return what m of two blocks is calculated from, at one prompt and pair of tokens.

    Args:
        own: variables of :func:`shown`, lazy or in memory.
        first: position of block i.
        second: position of block j; composition asks what a block reads of an earlier one.

    Returns:
        `A`: U_jᵀ J_i V_j, (k, k'), and `S`: singular values of both blocks, (2, k); `parts`: the
        same of parts of the blocks; `overlaps`: (k, k'), by name. Where the store has them,
        `cosine`: cos(u_k, v_k), (2, k); `eigenvalues`: real and imaginary parts, (2, 2, d), and
        `departure`, (2); `readout`: texts of tokens by block, vector, sign, k and rank, and
        `logits`.
    """
    two = own.isel(block=[first, second])

    def entry(name: str) -> np.ndarray:
        return own[name].isel(block=first, block_other=second).to_numpy()

    overlaps = [n for n in OVERLAPS if n in own and (not OVERLAPS[n].earlier or second < first)]
    found: dict[str, Any] = {
        "A": entry("A"),
        "S": two["S"].to_numpy(),
        "parts": {
            part: {"A": entry(f"A_{part}"), "S": two[f"S_{part}"].to_numpy()}
            for part in OF_PARTS
            if f"A_{part}" in own
        },
        "overlaps": {name: entry(name) for name in overlaps},
    }
    if "uv_cosine" in own:
        found["cosine"] = two["uv_cosine"].to_numpy()
    if "eigenvalues" in own:
        values = two["eigenvalues"].to_numpy()
        found["eigenvalues"] = np.stack([values.real, values.imag], axis=1)
        found["departure"] = departure_from_normality(two).to_numpy().tolist()
    if "readout_token" in own:
        ids = two["readout_token"].to_numpy()
        texts = texts_of(two["readout_text"].to_numpy())
        # Without a tokenizer that decodes, the ids themselves.
        found["readout"] = np.where(texts == "", ids.astype(str), texts).tolist()
        found["logits"] = two["readout_logit"].to_numpy()
    return found


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
    """Return the positions of blocks along the axis.

    Raises:
        UserError: a block that the store has not.
    """
    known = ds["block"].to_numpy().tolist()
    if wrong := [each for each in blocks if not each.isdecimal() or int(each) not in known]:
        raise UserError(f"no block {wrong[0]}: the store has blocks {known[0]} to {known[-1]}")
    return [known.index(int(each)) for each in blocks]
