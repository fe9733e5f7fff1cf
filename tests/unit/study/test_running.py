"""Which Snakemakes run in a directory."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockcoupling.study.running import now

# Says when it is there, and ends with what it reads from.
WAITS = "import sys\nprint(flush=True)\nsys.stdin.read()\n"
FORKS = "import os\nos.fork()\n" + WAITS


@contextmanager
def called_snakemake(directory: Path, text: str, *words: str) -> Iterator[int]:
    """A process that goes by the name of Snakemake; yields its number."""
    (directory / "snakemake").write_text(text)
    process = subprocess.Popen(
        [sys.executable, "snakemake", *words],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        for _ in range(text.count("fork()") + 1):
            process.stdout.readline()
        yield process.pid
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_that_is_about_to_start_a_job_is_one(here: Path):
    with called_snakemake(here, FORKS) as number:
        assert list(now().snakemake) == [number]


def test_two_of_them_are_two(here: Path):
    with called_snakemake(here, WAITS) as first, called_snakemake(here, WAITS) as second:
        assert sorted(now().snakemake) == sorted([first, second])
    assert not now().snakemake


@pytest.mark.parametrize("word", ["-n", "--unlock", "--mode"])
def test_one_that_runs_no_workflow_is_none(here: Path, word: str):
    with called_snakemake(here, WAITS, word):
        assert not now().snakemake


def test_one_in_another_directory_is_none(here: Path, monkeypatch: pytest.MonkeyPatch):
    with called_snakemake(here, WAITS):
        (here / "other").mkdir()
        monkeypatch.chdir(here / "other")
        assert not now().snakemake
