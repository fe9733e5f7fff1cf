"""The same configuration and seeds give the same bits; other threads nearly the same numbers."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

pytestmark = pytest.mark.workflow

STEPS = 3
TRAINING = {
    **{"name": "m", "hidden_size": 128, "blocks": 3, "heads": 2, "context": 128, "batch": 4},
    **{"steps": STEPS, "seed": 3, "checkpoints": [STEPS]},
}
PROMPTS = {"source": "builtin", "name": "heldout", "prompts": 4, "seed": 5}
OWN = ("--facet", "model=m", "--facet", f"checkpoint=step{STEPS}", "--facet", "dataset=heldout")
TABLES = ("--k", 2, "--k", 8, "--variant", "frobenius")
HELDOUT = ("--spec", '{"heldout": true, "harness": {}, "recorded": {}}')
OUT = Path("results")


def jobs(weights: Path | None, training: dict[str, Any] = TRAINING) -> list[dict[str, Any]]:
    """From a training (or weights that are there) to statistics, as a study has it."""
    path = str(weights or OUT / "weights" / f"step{STEPS}")
    spec = {"name": "m", "checkpoint": f"step{STEPS}", "source": "train", "path": path}
    spec["step"] = STEPS
    entries = ("--entries", str(OUT / "entries"))
    svd = ("--model", OUT / "m.json", "--prompts", OUT / "prompts.jsonl", "--k", 8, "--batch", 2)
    words: list[tuple[Any, ...]] = [
        ("train", "--spec", json.dumps(training), "--out", OUT / "weights"),
        ("model", "--spec", json.dumps(spec), "--out", OUT / "m.json", *entries, *OWN[:4]),
        ("prompts", "--spec", json.dumps(PROMPTS), "--out", OUT / "prompts.jsonl"),
        ("score", "--model", OUT / "m.json", "--out", OUT / "score.parquet", *HELDOUT),
    ]
    for method in ("dense", "krylov"):
        store, tables = OUT / f"{method}.zarr", OUT / f"tables-{method}"
        parts = ("--parts", OUT / f"parts-{method}")
        words += [
            ("extract", *svd, *parts, "--method", method, "--out", store),
            ("reduce", "--svd", store, "--out", tables, *TABLES, *OWN),
        ]
    return [
        {
            **{"name": str(n), "chain": "one", "words": list(map(str, each))},
            **{"log": str(OUT / f"{n}.log"), "benchmark": str(OUT / f"{n}.tsv")},
        }
        for n, each in enumerate(words)
        if not (weights and each[0] == "train")
    ]


def run(place: Path, *, threads: int = 1, hashes: int = 0, **options: Any) -> Path:
    """Run everything in a process of its own; return the directory of its results."""
    place.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(hashes)}
    words = json.dumps(jobs(options.pop("weights", None), **options))
    ended = subprocess.run(
        [sys.executable, "-m", "blockcoupling", "together", words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return place / OUT


def contents(results: Path) -> dict[str, str]:
    """Digests of all that holds numbers: weights, stores, tables."""
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in results.rglob("*")
        if path.suffix in (".safetensors", ".parquet")
        or any(parent.suffix == ".zarr" for parent in path.parents)
        if path.is_file()
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("first") / "here")


def test_the_same_seeds_give_the_same_bits(first: Path, tmp_path: Path) -> None:
    """In another process, in another directory, with Python's sets and dicts hashed otherwise."""
    again = contents(run(tmp_path / "elsewhere", hashes=12345))
    once = contents(first)
    assert sum(name.endswith(".parquet") for name in once) > 10
    # A store says where its weights lay: which is the same, seen from where the study runs.
    assert again == once


def test_another_seed_gives_other_bits(first: Path, tmp_path: Path) -> None:
    """What is compared above does depend on the seed."""
    other = contents(run(tmp_path / "other", training={**TRAINING, "seed": 4}))
    once = contents(first)
    assert other.keys() == once.keys()
    held = ("tables-dense/coupling.parquet", "score.parquet", "dense.zarr/S/c.0.0.0.0")
    assert all(other[name] != once[name] for name in held)


OF_STORES = 1e-5
"""Relative to the largest value of a variable: float32 has 24 bits, 6e-8; sums of some
hundred products in another order differ by a few ten of them."""
OF_TABLES = 1e-4
"""Tolerance of coupling and similar measures, which are within 0 and 2: they divide by singular
values, and the smallest that count are a hundredth of the largest."""


def test_other_threads_give_the_same_numbers_nearly(first: Path, tmp_path: Path) -> None:
    """The same weights: a training's last bits depend on the threads, and grow as it goes on."""
    two = run(tmp_path / "two", weights=first / "weights" / f"step{STEPS}", threads=2)
    for method in ("dense", "krylov"):
        one, other = (
            xr.open_zarr(at / f"{method}.zarr", consolidated=False) for at in (first, two)
        )
        for name in ("S", "A", "jacobian_norm", "gram"):
            difference = float(abs(one[name] - other[name]).max() / abs(one[name]).max())
            assert difference < OF_STORES, (method, name)
        for table in ("coupling", "locality", "trajectory"):
            file = f"tables-{method}/{table}.parquet"
            frames = [pd.read_parquet(at / file).select_dtypes("floating") for at in (first, two)]
            np.testing.assert_allclose(*frames, rtol=OF_TABLES, atol=OF_TABLES, err_msg=file)


def test_the_guide_states_these_tolerances() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "reproducibility.md").read_text()
    assert f"within {OF_STORES:.0e} of".replace("e-0", "e-") in guide
    assert f"within {OF_TABLES:.0e} ".replace("e-0", "e-") in guide
