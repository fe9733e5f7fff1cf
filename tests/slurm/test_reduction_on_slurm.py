"""A store reduced by workers that are jobs of Slurm: what threads give, one being killed."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cluster import Cluster
from example_store import example

from blockcoupling.store.svd import SVD

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

PROMPTS = 96


@pytest.fixture(scope="module")
def svd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of several batches of prompts, with enough in it for a few seconds of work."""
    place = tmp_path_factory.mktemp("reduction")
    ds = example(2, blocks=6, k=20, embed=20, swapped=True)
    names = {f"p{n}": "x" for n in range(PROMPTS)}
    for n, name in enumerate(names):
        part = ds.isel(prompt=[n % 2]).assign_coords(prompt=np.array([name], dtype=object))
        SVD.write(place / "parts", str(part["prompt"].item()), part, "x")
    SVD.join(place / "parts", place / "svd.zarr", names)
    return place / "svd.zarr"


def reduction(svd: Path, out: Path, *options: str) -> list[str]:
    words = ["reduce", "--svd", str(svd), "--out", str(out), "--k", "10", "--k", "20"]
    words += ["--variant", "frobenius", "--variant", "swapped", *options]
    words += [f"--facet={name}=x" for name in ("model", "checkpoint", "dataset")]
    return [sys.executable, "-m", "blockcoupling", *words]


def contents(place: Path) -> dict[str, str]:
    return {
        str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(place.rglob("*"))
        if file.is_file()
    }


def workers() -> list[str]:
    """Ids of the workers' jobs that run."""
    squeue = ["squeue", "--noheader", "--name=reduce-worker", "--states=R", "--format=%i"]
    return subprocess.run(squeue, capture_output=True, text=True, check=True).stdout.split()


def test_workers_on_slurm_give_what_threads_give(
    cluster: Cluster, svd: Path, tmp_path: Path
) -> None:
    subprocess.run(reduction(svd, tmp_path / "threads", "--workers", "1"), check=True)

    job = f'{{"memory_mb": 600, "minutes": 5, "logs": "{tmp_path}/workers"}}'
    command = reduction(svd, tmp_path / "slurm", "--cluster", "slurm", "--workers", "2")
    with subprocess.Popen(
        [*command, "--job", job], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        while running.poll() is None and not (first := workers()):
            time.sleep(0.2)
        # A node fails, or somebody cancels a job, when it has something to do.
        time.sleep(2)
        subprocess.run(["scancel", first[0]], check=True)
        said = running.communicate()[0]
    assert running.returncode == 0, said
    assert contents(tmp_path / "slurm") == contents(tmp_path / "threads")
    assert len(contents(tmp_path / "slurm")) > 10

    # All of them were jobs, the one that replaced the cancelled one too, and none is left.
    mine = [r for r in cluster.completed_jobs().values() if r["Name"] == "reduce-worker"]
    assert workers() == []
    assert len(mine) >= 2
    assert {record["TimeLimit"] for record in mine} == {"5"}
    assert all("mem=800M" in record["Tres"] for record in mine)
