"""What was measured at a step of a training, as a store of the catalog."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from blockcoupling.catalog.entries import write_entry
from blockcoupling.store.parts import fingerprint
from blockcoupling.store.svd import SVD


def keep(directory: Path, parts: Sequence[xr.Dataset], facets: Mapping[str, str]) -> Path:
    """Write the prompts of one step into one store, with its entry next to it.

    Args:
        directory: of all steps; that of this one is named after its checkpoint.
        parts: one dataset for each prompt.
        facets: model, checkpoint and dataset.

    Returns:
        The entry file. The store is next to it, `svd.zarr`, and replaces an older one.
    """
    own = directory / facets["checkpoint"]
    made = dict.fromkeys((str(part["prompt"].item()) for part in parts), fingerprint(**facets))
    for name, part in zip(made, parts, strict=True):
        SVD.write(own / "parts", name, part, made[name])
    names = {"model": facets["model"], "checkpoint": facets["checkpoint"]}
    SVD.join(own / "parts", own / "svd.zarr", made, attributes=names)
    shutil.rmtree(own / "parts")
    write_entry(own / "svd.yml", "svd", own / "svd.zarr", {**facets, "source": "bc.watch"})
    return own / "svd.yml"
