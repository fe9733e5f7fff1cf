"""The comparison that `make faults` makes finds lost numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from faults.fault import Outcome, compare
from faults.page import keep, page, table


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    own = tmp_path / "reference" / "results"
    own.mkdir(parents=True)
    pd.DataFrame({"m": ["a", "b"], "x": [1.0, np.nan]}).to_parquet(own / "t.parquet")
    numbers = xr.Dataset({"S": ("k", np.array([3.0, 2.0, np.nan]))})
    numbers.to_zarr(own / "svd.zarr", zarr_format=3, consolidated=False)
    return own.parent


@pytest.fixture
def other(reference: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reference, tmp_path / "other")


def test_equal_results_have_no_lost_numbers(reference: Path, other: Path) -> None:
    assert compare(other, reference, "results") == ([], 0)


def test_one_number_that_differs_is_one_lost(reference: Path, other: Path) -> None:
    changed = pd.DataFrame({"m": ["a", "b"], "x": [1.0, 2.0]})
    changed.to_parquet(other / "results" / "t.parquet")
    assert compare(other, reference, "results") == (["results/t.parquet differs"], 1)


def test_all_numbers_of_missing_or_unreadable_files_are_lost(reference: Path, other: Path) -> None:
    shutil.rmtree(other / "results" / "svd.zarr")
    (other / "results" / "t.parquet").write_bytes(b"no table")
    different, lost = compare(other, reference, "results")
    assert len(different) > 1
    assert lost == 3 + 4


def test_an_empty_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no results"):
        compare(tmp_path, tmp_path, "results")


def test_the_page_keeps_the_outcomes_of_other_faults(tmp_path: Path) -> None:
    outcome = Outcome("a fault", seen="nothing")
    outcome.count([], 0)
    outcome.count(["x differs"], 3)
    keep(tmp_path / "r.json", "one", [outcome])
    keep(tmp_path / "r.json", "two", [], "no Slurm")

    text = page(json.loads((tmp_path / "r.json").read_text()), ["one", "two"])
    assert "| a fault | 2 | 1 | 3 | " in text
    assert "- two: no Slurm" in text
    assert table([outcome]).splitlines()[1].split()[-3:] == ["2", "1", "3"]
