"""The reasons for which Slurm ended jobs, read from Slurm's own messages."""

import os
from pathlib import Path

import pytest

from blockcoupling.study.slurm_faults import explained, fixed_requests

FAILED = (
    "SLURM-job '41' failed, SLURM status is: 'FAILED'. Detailed failure reason unavailable "
    "(status command is not 'sacct')."
)
# As Slurm 22.05 writes them: jobacct_gather's limit, a cgroup's, a runtime's, a node's.
GATHERED = "slurmstepd: error: Step 41.0 exceeded memory limit (612352 > 307200), being killed\n"
CGROUP = "slurmstepd: error: Detected 1 oom_kill event in StepId=41.batch. Some of the step tasks\n"
LATE = (
    "slurmstepd: error: *** JOB 41 ON n1 CANCELLED AT 2026-11-28T01:02:03 DUE TO TIME LIMIT ***\n"
)
NODE = "slurmstepd: error: *** JOB 41 ON n1 CANCELLED AT 2026-11-28T01:02:03 DUE TO NODE FAILURE\n"


def commands(place: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put these commands on the path, and none of Slurm's."""
    for name, script in scripts.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}/bin")


@pytest.mark.parametrize(
    ("written", "word"),
    [
        (GATHERED, "out of memory"),
        (CGROUP, "out of memory"),
        (LATE, "out of time"),
        (NODE, "its node failed"),
    ],
)
def test_the_reason_is_in_slurms_log(tmp_path: Path, written: str, word: str) -> None:
    log = tmp_path / "41.log"
    log.write_text(f"host: n1\n{written}")
    said = explained(FAILED, ["not/there.log", str(log)])
    assert said.startswith(f"{FAILED} Why: {word}")


def test_accounting_is_asked_if_the_log_gives_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, monkeypatch, sacct='echo "$*" > asked; printf "OUT_OF_MEMORY\\nFAILED\\n"')
    monkeypatch.chdir(tmp_path)
    assert "Why: out of memory" in explained(FAILED, [])
    assert "--jobs=41" in (tmp_path / "asked").read_text()
    commands(tmp_path, monkeypatch, sacct="echo FAILED")
    assert explained(FAILED, []) == FAILED


def test_without_accounting_and_without_a_reason_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = "echo Slurm accounting storage is disabled >&2; exit 1"
    for scripts in ({}, {"sacct": off}):
        commands(tmp_path, monkeypatch, **scripts)
        assert "Accounting (sacct) is off here" in explained(FAILED, [])


def test_other_messages_stay_as_they_are() -> None:
    assert explained("exit code 1", ["x.log"]) == "exit code 1"


def test_a_number_that_does_not_grow_is_a_warning_with_what_to_type() -> None:
    given = {
        "extract": {"mem_mb": 300, "slurm_partition": "gpu"},
        "score": {"mem_mb": "300 * attempt", "runtime": lambda wildcards, attempt: 5 * attempt},
    }
    (sentence,) = fixed_requests(given)
    assert "extract:mem_mb=300 is the same at every attempt" in sentence
    assert "--set-resources 'extract:mem_mb=300 * attempt'" in sentence
    assert fixed_requests({}) == []
