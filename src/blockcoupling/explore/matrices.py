"""Payload of one measurement: its block-by-block matrices, means over prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from blockcoupling.config.overlaps import CUMULATIVE, OVERLAPS
from blockcoupling.reduce.overlap import above_chance
from blockcoupling.reduce.width import dimension

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


def matrices(catalog: Catalog, model: str, checkpoint: str, dataset: str) -> dict[str, Any]:
    """Return the matrices of one checkpoint on one dataset.

    Returns:
        `variants` and `ks`; `m` and its standard error over prompts `se`, (variant, K, i, j);
        `prompts`: number of values that a mean is of, at most; `overlaps`: by name, above chance,
        (K, i, j), where measured.

    Raises:
        UserError: the catalog has no such matrices, or they cannot be read.
    """
    about = {"model": model, "checkpoint": checkpoint, "dataset": dataset}
    table = catalog.one(kind="miscoupling", **about).read(chunks=None)
    mean, spread, count = (
        table[f"miscoupling_{name}"].transpose("variant", "K", ...).to_numpy()
        for name in ("mean", "std", "count")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(count > 1, spread / np.sqrt(count), np.nan)
    found, d = {}, dimension(table)
    for name in (*OVERLAPS, *CUMULATIVE):
        if f"{name}_mean" in table and d is not None:
            raw = table[f"{name}_mean"].load()
            found[name] = above_chance(raw, 0 * raw + raw["K"] / d).transpose("K", ...).to_numpy()
    return {
        "variants": [str(each) for each in table["variant"].to_numpy()],
        "ks": table["K"].to_numpy().tolist(),
        "blocks": table.sizes["block"],
        "prompts": int(count.max(initial=0)),
        "m": mean,
        "se": error,
        "overlaps": found,
    }
