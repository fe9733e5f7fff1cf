"""Where a reduction runs changes nothing but where it runs."""

import hashlib
import logging
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import dask
import numpy as np
import pytest
from example_store import example

from blockcoupling.config.reduce import Reduce, WorkerJob
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.reduce import chunks, tables
from blockcoupling.reduce import engine as engines
from blockcoupling.reduce.engine import Engine
from blockcoupling.reduce.tables import reduce_store
from blockcoupling.store.svd import SVD

IDENTITY = {"model": "m", "checkpoint": "c", "dataset": "d"}


@pytest.fixture(scope="module")
def svd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("engine")
    names = {f"p{n}": "x" for n in range(5)}
    for seed, name in enumerate(names):
        part = example(1, seed=seed, blocks=4, swapped=True, overlaps=True)
        SVD.write(
            place / "parts", name, part.assign_coords(prompt=np.array([name], dtype=object)), "x"
        )
    SVD.join(place / "parts", place / "svd.zarr", names)
    return place / "svd.zarr"


def contents(place: Path) -> dict[str, str]:
    """A digest of every file in a directory."""
    return {
        str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(place.rglob("*"))
        if file.is_file()
    }


@pytest.mark.slow
def test_a_local_cluster_gives_what_threads_give(
    svd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte of every table and matrix, with several batches on their way at a time."""
    monkeypatch.setattr(chunks, "BATCH", 2)
    for cluster in ("threads", "local"):
        out = tmp_path / cluster
        reduce_store(svd, out, [1, 2], None, IDENTITY, engine=Engine(cluster, 2))
    assert len(contents(tmp_path / "local")) > 10
    assert contents(tmp_path / "local") == contents(tmp_path / "threads")


def test_threads_are_used_whatever_scheduler_dask_is_configured_with() -> None:
    with (
        dask.config.set(scheduler="distributed"),  # DASK_SCHEDULER=distributed
        engines.running(Engine(), 1) as compute,
    ):
        lazy = dask.delayed(lambda: 7)()
        assert list(compute([(lazy,)])) == [(7,)]


def test_damage_that_a_worker_finds_is_named(svd: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "svd.zarr"
    shutil.copytree(svd, damaged)
    chunk = min((damaged / "A").glob("c.*"))
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(MeasurementError, match=r"svd\.zarr is damaged: A/c\.0\..* cannot be read"):
        reduce_store(damaged, tmp_path / "out", [2], identity=IDENTITY, engine=Engine("local", 1))


def test_the_dashboard_is_where_it_is_said_to_be(
    svd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if find_spec("bokeh") is None:
        pytest.skip("Bokeh, which draws the dashboard, is not installed")
    answers = []

    def looking(*arguments: object) -> object:
        (said,) = [record.getMessage() for record in caplog.records]
        answers.append(urlopen(said.split(": ", 1)[1]).status)
        return lazy(*arguments)

    lazy = tables._lazy
    monkeypatch.setattr(tables, "_lazy", looking)
    with caplog.at_level(logging.WARNING, "blockcoupling.reduce.engine"):
        reduce_store(svd, tmp_path, [2], None, IDENTITY, engine=Engine("threads", 2, True))
    assert answers == [200]


def test_a_dashboard_without_bokeh_is_refused_in_a_sentence(
    svd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs Bokeh: pip install"):
        reduce_store(svd, tmp_path, [2], None, IDENTITY, engine=Engine(dashboard=True))


def test_slurm_without_slurm_is_refused_in_a_sentence(
    svd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch here"):
        reduce_store(svd, tmp_path, [2], None, IDENTITY, engine=Engine("slurm"))


def test_what_slurm_says_of_a_wrong_partition_is_said(
    svd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the script that it was given asks for what it was to ask for."""
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        f"#!/bin/sh\ncat $1 > {tmp_path}/script\n"
        'echo "sbatch: error: invalid partition specified: gpu" >&2\nexit 1\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    asks = WorkerJob(
        memory_mb=3000, minutes=7, partition="gpu", account="us", logs=tmp_path / "logs"
    )
    with pytest.raises(UserError, match=r"no worker of the reduction: .*invalid partition"):
        reduce_store(svd, tmp_path, [2], None, IDENTITY, engine=Engine("slurm", 1, job=asks))
    script = (tmp_path / "script").read_text()
    for line in ("-p gpu", "-A us", "-t 7", "--mem=3200M", "--cpus-per-task=1"):
        assert f"#SBATCH {line}\n" in script
    assert f"#SBATCH -o {tmp_path}/logs/" in script


def test_a_cluster_has_several_workers_unless_said() -> None:
    assert Reduce().workers == 1
    assert Reduce(cluster="local").workers == 4
    assert Reduce(cluster="slurm", workers=2).workers == 2
