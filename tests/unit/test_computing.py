"""What this package computes by itself is computed by threads, whatever Dask is configured with."""

import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest
import xarray as xr
from example_store import example

from blockcoupling.computing import computed
from blockcoupling.store.svd import SVD


def refused(*args: object, **kwargs: object) -> None:
    raise AssertionError("computed by the scheduler of the user's configuration")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    SVD.write(tmp_path / "parts", "p0", example(1).assign_coords(prompt=["p0"]), "x")
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", {"p0": "x"})
    return tmp_path / "svd.zarr"


def test_opening_a_store(store: Path) -> None:
    with dask.config.set(scheduler=refused):
        ds = SVD.open(store)
        assert ds["prompt"].values.tolist() == ["p0"]
        assert isinstance(computed(ds)["S"].variable._data, type(xr.Variable((), 0.0).values))
        with pytest.raises(AssertionError, match="the user's configuration"):
            ds["S"].compute()  # the user's own


def test_a_verb_computes_by_threads() -> None:
    code = (
        "import sys; from blockcoupling.cli.app import main\n"
        "sys.argv = ['blockcoupling', '--version']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'dask' not in sys.modules\n"
        "import dask; assert dask.config.get('scheduler') == 'threads'"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "DASK_SCHEDULER": "distributed"},
    )
