"""`snakemake --profile slurm` on a real Slurm gives what `snakemake` gives."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from cluster import CONFIGURATION, NODES, Cluster, NoCluster, refuse_foreign_slurm

from blockcoupling.catalog import open_catalog

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]

REPOSITORY = Path(__file__).parents[2]
NEEDED = ("Snakefile", "workflow", "profiles", "slurm", "environment.yml")
STUDY = REPOSITORY / "tests" / "workflow" / "study.yaml"


def fresh_copy(directory: Path) -> Path:
    """What of the repository a run needs, with the study of seconds as its configuration."""
    for name in NEEDED:
        source = REPOSITORY / name
        if source.is_symlink() or source.is_file():
            shutil.copy(source, directory / name, follow_symlinks=False)
        else:
            shutil.copytree(source, directory / name)
    (directory / "config").mkdir()
    shutil.copy(STUDY, directory / "config" / "config.yaml")
    return directory


def type_in(directory: Path, *command: str) -> str:
    """Type a command in a directory, with the environment active; what it says."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def tables(directory: Path, kind: str) -> pd.DataFrame:
    measured = directory / "results" / "seconds" / "catalog" / "measurements.yml"
    return open_catalog(measured).search(kind=kind).frame()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study's measurements, made without Slurm; tests only look at them."""
    directory = fresh_copy(tmp_path_factory.mktemp("local"))
    type_in(directory, "snakemake", "measurements")
    return directory


def test_a_study_on_slurm(cluster: Cluster, local: Path, tmp_path_factory: pytest.TempPathFactory):
    remote = fresh_copy(tmp_path_factory.mktemp("slurm"))
    # Up to the statistics. Small jobs share an allocation, as the profile's comment has it.
    wanted = ["measurements", "results/seconds/catalog/statistics.yml"]
    grouped = ["--groups", "reduce=reduce", "score=score"]
    grouped += ["--group-components", "reduce=3", "score=9"]
    command = ["snakemake", "--profile", "slurm", *grouped, "--", *wanted]
    said = type_in(remote, *command)

    # Slurm's own record knows every job that Snakemake says it submitted.
    submitted = re.findall(r"SLURM jobid (\d+) \(log: \S*/rule_(\w+)/", said)
    rules = Counter(rule for _, rule in submitted)
    assert rules["extract"] == 6
    assert rules["train"] == 2
    assert {"model", "correlate", "costs"} <= set(rules)
    sharing = re.findall(r"SLURM jobid (\d+) \(log: \S*/group_(\w+?)_", said)
    assert Counter(g for _, g in sharing) == {"reduce": 2, "score": 1}
    submitted += sharing
    # What may have to be downloaded runs where Snakemake does.
    assert not {"weights", "prompts"} & set(rules)
    first = min(int(number) for number, _ in submitted)  # those before are other tests'
    completed = {n: job for n, job in cluster.completed_jobs().items() if n >= first}
    assert {int(number) for number, _ in submitted} == set(completed)
    assert {record["JobState"] for record in completed.values()} == {"COMPLETED"}
    assert {record["NodeList"] for record in completed.values()} == set(NODES)
    # Each asked for memory and time of its own, not for a whole node until further notice.
    assert all(re.search(r"mem=\d{4}M", completed[int(n)]["Tres"]) for n, _ in submitted)
    assert all(int(record["TimeLimit"]) <= 60 for record in completed.values())

    assert "Nothing to be done" in type_in(remote, *command)

    for kind in ("coupling", "locality", "trajectory", "spectra", "singular_values"):
        # The same machine and the same number of threads: the same numbers, to the last bit.
        pd.testing.assert_frame_equal(tables(remote, kind), tables(local, kind), check_exact=True)
    scores = [tables(place, "score")["value"] for place in (remote, local)]
    pd.testing.assert_series_equal(*scores, check_exact=True)


def test_a_job_over_its_memory_is_tried_with_more_and_the_screen_says_why(
    cluster: Cluster, tmp_path: Path
):
    asked = "train:mem_mb=300 * attempt"
    trained = "results/seconds/training/small/trained.json"
    words = ["snakemake", "--profile", "slurm", trained, "--set-resources", asked]
    said = type_in(fresh_copy(tmp_path), *words)
    assert "Why: out of memory" in said
    numbers = [int(number) for number in re.findall(r"SLURM jobid (\d+) ", said)]
    jobs = [cluster.completed_jobs()[number] for number in numbers]
    assert jobs[-1]["JobState"] == "COMPLETED"
    assert {record["JobState"] for record in jobs[:-1]} <= {"FAILED", "OUT_OF_MEMORY", "CANCELLED"}
    amounts = [int(re.search(r"mem=(\d+)M", record["Tres"])[1]) for record in jobs]
    assert amounts == [300, 600, 900][: len(amounts)]
    assert len(amounts) > 1


def test_a_foreign_slurm_is_left_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    ours = CONFIGURATION.read_text()
    refuse_foreign_slurm()
    try:
        CONFIGURATION.write_text("ClusterName=somebody-elses\n")
        with pytest.raises(NoCluster, match="not ours"):
            refuse_foreign_slurm()
    finally:
        CONFIGURATION.write_text(ours)
    monkeypatch.setenv("SLURM_CONF", "/shared/slurm.conf")
    with pytest.raises(NoCluster, match="SLURM_CONF"):
        refuse_foreign_slurm()
