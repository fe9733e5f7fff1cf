"""A study of one artifact of every format, and its catalog."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_store import example

from blockcoupling.catalog import Catalog, join, write_entry
from blockcoupling.store.checksums import write_store
from blockcoupling.store.svd import SVD

TABLE = pd.DataFrame({"model": ["m"], "k": [10], "coupling": [-0.5]})
MATRIX = xr.Dataset({"mean": (("block", "block_other"), np.eye(3))})


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a study of one artifact of every format."""
    root = tmp_path_factory.mktemp("original")
    results = root / "results"
    results.mkdir(parents=True)
    (results / "model.json").write_text(json.dumps({"name": "m", "parameters": 12}))
    (results / "prompts.jsonl").write_text('{"id": "007", "text": "née"}\n{"id": "2020-01-01"}\n')
    TABLE.to_parquet(results / "coupling.parquet")
    write_store(MATRIX, results / "miscoupling.zarr")
    whole = example(prompts=3, k=2)
    ids = {str(prompt): "fingerprint" for prompt in whole["prompt"].values}
    for n, prompt in enumerate(ids):
        SVD.write(results / "parts", prompt, whole.isel(prompt=[n]), ids[prompt])
    SVD.join(results / "parts", results / "svd.zarr", ids)
    (results / "emergence.png").write_bytes(b"\x89PNG picture")
    (results / "emergence.pdf").write_bytes(b"%PDF picture")
    (results / "report.html").write_text("<title>née</title>", encoding="utf-8")
    own = {"model": "m", "checkpoint": "step64", "dataset": "held-out"}
    for kind, file, facets in (
        ("model", "model.json", {"model": "m", "checkpoint": "step64"}),
        ("prompts", "prompts.jsonl", {"dataset": "held-out"}),
        ("coupling", "coupling.parquet", own),
        ("miscoupling", "miscoupling.zarr/zarr.json", own),
        ("svd", "svd.zarr/zarr.json", own),
        ("figure", "emergence.png", {"figure": "emergence", "format": "png"}),
        ("figure", "emergence.pdf", {"figure": "emergence", "format": "pdf"}),
        ("report", "report.html", {}),
    ):
        write_entry(
            root / "entries" / f"{file.replace('/', '-')}.yml", kind, results / file, facets
        )
    return root


@pytest.fixture
def tree(original: Path, tmp_path: Path) -> Path:
    """Return a copy to do anything with, in a folder whose name has odd characters."""
    return shutil.copytree(original, tmp_path / "a study, 50% #1")


@pytest.fixture
def catalog(tree: Path) -> Catalog:
    return join((tree / "entries").glob("*.yml"), tree / "catalog" / "catalog.yml")
