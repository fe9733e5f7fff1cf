"""Payload of one measurement: its block-by-block matrices, means over prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from blockcoupling.config.overlaps import CUMULATIVE, OVERLAPS
from blockcoupling.reduce.overlap import above_chance
from blockcoupling.reduce.width import dimension

if TYPE_CHECKING:
    import xarray as xr

    from blockcoupling.catalog import Catalog


def matrices(catalog: Catalog, model: str, checkpoint: str, dataset: str) -> dict[str, Any]:
    """Return the matrices of one checkpoint on one dataset.

    Returns:
        `variants` and `ks`; `m` and its standard error over prompts `se`, (variant, K, i, j);
        `prompts`: number of values that a mean is of, at most; `overlaps`: by name, above chance,
        (K, i, j), where measured; where all prompts were measured at the same few tokens, `tokens`:
        what these are called, and `by_tokens`: `m` and `se` of each, (token, variant, K, i, j).

    Raises:
        UserError: the catalog has no such matrices, or they cannot be read.
    """
    about = {"model": model, "checkpoint": checkpoint, "dataset": dataset}
    table = catalog.one(kind="miscoupling", **about).read(chunks=None)
    mean, error = _with_error(table, "miscoupling", ["variant", "K"])
    apart: dict[str, Any] = {}
    if (name := "miscoupling_by_pair") + "_mean" in table:
        m, se = _with_error(table, name, ["pair", "variant", "K"])
        labels = [str(each) for each in table["tokens"].to_numpy()]
        apart = {"tokens": labels, "by_tokens": {"m": m, "se": se}}
    found, d = {}, dimension(table)
    for name in (*OVERLAPS, *CUMULATIVE):
        if f"{name}_mean" in table and d is not None:
            raw = table[f"{name}_mean"].load()
            found[name] = above_chance(raw, 0 * raw + raw["K"] / d).transpose("K", ...).to_numpy()
    return {
        "variants": [str(each) for each in table["variant"].to_numpy()],
        "ks": table["K"].to_numpy().tolist(),
        "blocks": table.sizes["block"],
        "prompts": int(table["miscoupling_count"].max()),
        "m": mean,
        "se": error,
        "overlaps": found,
        **apart,
    }


def _with_error(
    table: xr.Dataset, name: str, first: list[str]
) -> tuple[Float[np.ndarray, "*any"], Float[np.ndarray, "*any"]]:
    """Return means over prompts and their standard errors; NaN for a single prompt."""
    mean, spread, count = (
        table[f"{name}_{each}"].transpose(*first, ...).to_numpy()
        for each in ("mean", "std", "count")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean, np.where(count > 1, spread / np.sqrt(count), np.nan)
