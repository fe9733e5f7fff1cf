"""A real Slurm of two nodes on this machine: a node goes down, jobs exceed memory and time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from os import environ
from pathlib import Path

import yaml
from cluster import CONFIGURATION, Cluster, NoCluster, two_nodes
from running import REPOSITORY, Workplace

from faults import whole_study
from faults.fault import NotHere, Outcome, compare

NEEDED = ("Snakefile", "workflow", "profiles", "slurm", "environment.yml")
LONG = 60
"""Prompts of a study whose extraction takes longer than Slurm's shortest limit, a minute."""


def on_slurm(directory: Path) -> Iterator[Outcome]:
    """Start a cluster and provoke its faults."""
    if CONFIGURATION.exists():
        raise NotHere(f"{CONFIGURATION} exists: this machine has a Slurm of its own")
    try:
        with two_nodes() as cluster:
            yield from _faults(directory, cluster)
    except NoCluster as reason:
        raise NotHere(f"Slurm cannot be started: {reason}") from reason


def _faults(directory: Path, cluster: Cluster) -> Iterator[Outcome]:
    short = _local(directory / "short", whole_study.PROMPTS, hidden=16)
    yield _node_down(directory / "node", short)
    yield _over(
        directory / "memory",
        short,
        cluster,
        "a job exceeds its memory; the next attempt asks for more",
        ["--set-resources", "extract:mem_mb=attempt*300"],
        "OUT_OF_MEMORY",
    )
    long = _local(directory / "long", LONG, hidden=64)
    yield _over(
        directory / "time",
        long,
        cluster,
        "a job exceeds its time; the next attempt asks for more",
        ["--set-resources", "extract:runtime=attempt"],
        "TIMEOUT",
    )


def _local(directory: Path, prompts: int, hidden: int) -> Workplace:
    """Run the study without Slurm, as the reference."""
    place = _study(directory, prompts, hidden)
    ended = _snakemake(place)
    if ended.returncode:
        raise AssertionError(ended.stdout)
    return place


def _study(directory: Path, prompts: int, hidden: int) -> Workplace:
    """Copy what a run needs from the repository; configure a study of one model."""
    directory.mkdir(parents=True)
    for name in NEEDED:
        source = REPOSITORY / name
        copy = shutil.copy if source.is_symlink() or source.is_file() else shutil.copytree
        copy(
            source, directory / name, **({"follow_symlinks": False} if copy is shutil.copy else {})
        )
    made = whole_study.prepare(directory / "made")
    study = made.configuration()
    study["models"]["small"]["train"] |= {"hidden_size": hidden}
    texts = [json.dumps({"text": f"The square of {n} is {n * n}."}) for n in range(prompts)]
    (directory / "mine.jsonl").write_text("\n".join(texts))
    shutil.rmtree(made.directory)
    (directory / "config").mkdir()
    (directory / "config" / "config.yaml").write_text(yaml.safe_dump(study))
    return Workplace(directory)


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "measurements", *words]


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{environ['PATH']}"
    return {**environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def _snakemake(place: Workplace, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*words),
        cwd=place.directory,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _wait(condition: Callable[[], str], started: subprocess.Popen[bytes]) -> str:
    """Wait for a condition while a process runs; return what it finds, or an empty text."""
    while started.poll() is None:
        if found := condition():
            return found
        time.sleep(0.2)
    return ""


def _node_of_a_job() -> str:
    lines = _said("squeue", "--noheader", "--states=RUNNING", "--format=%N %k").splitlines()
    return next((line.split()[0] for line in lines if "extract" in line), "")


def _give_back(node: str) -> None:
    """Resume a node that is down, unless it came back by itself (ReturnToService)."""
    if "down" in _said("sinfo", "--noheader", f"--nodes={node}", "--format=%t"):
        _said("scontrol", "update", f"NodeName={node}", "State=RESUME")


def _node_down(directory: Path, reference: Workplace) -> Outcome:
    """Take down the node that an extraction runs on, then resume it."""
    outcome = Outcome("a node goes down with jobs on it")
    begun = time.monotonic()
    place = _study(directory, whole_study.PROMPTS, hidden=16)
    log = directory / "said.txt"
    with log.open("wb") as stream:
        started = subprocess.Popen(
            _command("--profile", "slurm"),
            cwd=directory,
            env=_environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        node = _wait(_node_of_a_job, started)
        if node:
            _said("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=provoked")
            time.sleep(5)
            _give_back(node)
        started.wait()
    different, lost = compare(place.directory, reference.directory, *whole_study.RESULTS)
    if not node:
        different.append("no job ran on a node")
    outcome.count(different if started.returncode == 0 else [log.read_text()[-2000:]], lost)
    outcome.seen = "nothing to do: Slurm requeues the job, or Snakemake retries it"
    outcome.seconds = time.monotonic() - begun
    return outcome


def _over(
    directory: Path, reference: Workplace, cluster: Cluster, what: str, words: list[str], state: str
) -> Outcome:
    """Let an extraction ask for too little; Slurm's records show that it exceeded that."""
    outcome = Outcome(what)
    begun = time.monotonic()
    before = set(cluster.completed_jobs())
    place = _study(
        directory, sum(1 for _ in (reference.directory / "mine.jsonl").open()), _hidden(reference)
    )
    ended = _snakemake(place, "--profile", "slurm", *words)
    jobs = [job for number, job in cluster.completed_jobs().items() if number not in before]
    over = [job for job in jobs if job["JobState"] in (state, "FAILED", "CANCELLED")]
    different, lost = compare(place.directory, reference.directory, *whole_study.RESULTS)
    if ended.returncode:
        different.append(ended.stdout[-2000:])
    if not over:
        different.append("no job exceeded its limit")
    for _ in over or [None]:
        outcome.count(different, lost)
    outcome.seen = "one failed attempt; the next one asks for more and resumes where it stopped"
    outcome.notes += [f"Slurm: {job['JobState']}" for job in over if different]
    outcome.seconds = time.monotonic() - begun
    return outcome


def _hidden(place: Workplace) -> int:
    study = yaml.safe_load((place.directory / "config" / "config.yaml").read_text())
    return int(study["models"]["small"]["train"]["hidden_size"])
