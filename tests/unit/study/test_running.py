"""Which jobs run, from the journal, the process table and Slurm's queue."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from snakemake_records import OUTPUT, begun, planned

from blockcoupling.study import journal
from blockcoupling.study.journal import JOURNAL, Begun, Jobs, Journal, Run
from blockcoupling.study.running import Now, now

COMMENT = "rule_extract_wildcards_small_step2_mine"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def squeue(here: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Put a `squeue` on the path that lists these jobs."""
    script = here / "bin" / "squeue"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\ncat <<'X'\n" + "\n".join(lines) + "\nX\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")


def start() -> Journal:
    running = Journal()
    for each in (planned(extract=1), begun(1)):
        running.note(each)
    return running


def test_a_job_of_a_live_run_runs():
    running = start()
    found = now()
    assert found.processes == [os.getpid()]
    assert not found.interrupted
    assert found.state(OUTPUT) == "running"
    assert found.since(OUTPUT) is not None
    assert (found.state("other"), found.since("other")) == (None, None)
    running.close()
    ended = now()
    assert (ended.processes, ended.interrupted, ended.state(OUTPUT)) == ([], False, None)


def test_a_killed_run_is_interrupted_and_its_jobs_do_not_run():
    start()
    no_process = JOURNAL.read_text().replace(f'"process": {os.getpid()}', f'"process": {2**22 + 1}')
    JOURNAL.write_text(no_process)
    found = now()
    assert (found.processes, found.interrupted, found.state(OUTPUT)) == ([], True, None)


def test_a_killed_run_is_interrupted_before_its_parent_has_noticed():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin
    run = Run(child.pid, socket.gethostname(), psutil.Process(child.pid).create_time())
    assert run.alive
    child.stdin.close()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not run.alive
    child.wait()


def test_a_run_on_another_machine_cannot_be_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal.socket, "gethostname", lambda: "elsewhere")
    start()
    monkeypatch.undo()
    assert not Run(os.getpid(), "elsewhere", 0.0).here


def test_a_job_in_slurms_queue_runs_whatever_became_of_snakemake(here: Path, monkeypatch):
    start().close()
    squeue(
        here,
        monkeypatch,
        f"PENDING|/somewhere/else|{COMMENT}",
        f"RUNNING|{here}|rule_score_wildcards_small_step2",
        f"PENDING|{here}|{COMMENT}",
    )
    found = now()
    assert found.queue == {"rule_score_wildcards_small_step2": "RUNNING", COMMENT: "PENDING"}
    assert found.state(OUTPUT) == "queued"


def test_an_earlier_runs_job_runs_only_in_slurm():
    jobs = Jobs(Run(1, "h", 0.0), {"x": Begun(3.0, "c", last=False)})
    assert Now(jobs, alive=True).state("x") is None
    assert Now(jobs, alive=True, queue={"c": "RUNNING"}).state("x") == "running"
