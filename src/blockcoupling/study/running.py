"""What is running in a directory: Snakemake, its jobs here, and those in Slurm's queue.

Everything is looked at from outside: the notes that Snakemake keeps in `.snakemake/incomplete` of
jobs that have begun and not ended, the processes of this machine, and `squeue`.
"""

from __future__ import annotations

import base64
import getpass
import json
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_NOTES = Path(".snakemake/incomplete")
_LOCKS = Path(".snakemake/locks")
RUNNING, QUEUED = "running", "queued"


@dataclass(frozen=True)
class Begun:
    """A job that has begun: when, in seconds of the epoch, and its number in Slurm."""

    since: float
    slurm: str | None = None


@dataclass(frozen=True)
class Now:
    """What goes on in the working directory.

    Attributes:
        snakemake: Process id and start of each Snakemake that runs a workflow here.
        locked: Whether the directory is locked; with no Snakemake here, it was killed or runs on
            another machine.
        begun: By output, the jobs that have begun and not ended, as far as Snakemake knows.
        queue: By number, the state of this user's jobs in Slurm; empty without Slurm.
    """

    snakemake: dict[int, float] = field(default_factory=dict)
    locked: bool = False
    begun: dict[str, Begun] = field(default_factory=dict)
    queue: dict[str, str] = field(default_factory=dict)

    def state(self, outputs: Iterable[str]) -> str | None:
        """`running`, `queued`, or None: the job that makes these files is neither.

        A note that a killed Snakemake has left, older than every Snakemake that runs now, is of no
        running job; one of a job in Slurm's queue is, whatever became of Snakemake.
        """
        noted = [self.begun[each] for each in outputs if each in self.begun]
        for begun in noted:
            if begun.slurm in self.queue:
                return QUEUED if self.queue[begun.slurm] == "PENDING" else RUNNING
        # Whole seconds stand in times of processes.
        running = any(
            begun.since >= start - 1 for begun in noted for start in self.snakemake.values()
        )
        return RUNNING if running else None

    def since(self, outputs: Iterable[str]) -> float | None:
        """When the job that makes these files began; None where there is no note of it."""
        noted = [self.begun[each].since for each in outputs if each in self.begun]
        return min(noted, default=None)


def now() -> Now:
    """Look what goes on in the working directory."""
    begun = dict(_begun())
    in_slurm = any(each.slurm for each in begun.values())
    return Now(
        snakemake=dict(_snakemakes()),
        locked=_LOCKS.is_dir() and any(_LOCKS.iterdir()),
        begun=begun,
        queue=_queue() if in_slurm else {},
    )


def _begun() -> Iterable[tuple[str, Begun]]:
    for note in _NOTES.rglob("*"):
        # Gone in between: that job has just ended. Half written: it has just begun.
        with suppress(FileNotFoundError, ValueError):
            if note.is_file():
                # A name too long for a file is spread over directories marked by `@`.
                name = "".join(part.removeprefix("@") for part in note.relative_to(_NOTES).parts)
                output = base64.urlsafe_b64decode(name).decode()
                number = json.loads(note.read_text() or "{}").get("external_jobid")
                yield output, Begun(note.stat().st_mtime, number)


def _snakemakes() -> Iterable[tuple[int, float]]:
    """Those that run a workflow here, not the processes that they have started for single jobs."""
    found = {process.pid: process for process in psutil.process_iter() if _runs_here(process)}
    for number, process in found.items():
        with suppress(psutil.Error):
            # A process that starts another is there twice, under the same command line, until the
            # second one has become what was asked for.
            if process.ppid() not in found:
                yield number, process.create_time()


def _runs_here(process: psutil.Process) -> bool:
    with suppress(psutil.Error, OSError):
        words = process.cmdline()
        if not any(Path(word).name == "snakemake" for word in words[:3]):
            return False
        # `--mode remote` or `subprocess`: a job; `-n` and its like run nothing.
        if {"--mode", "--dry-run", "--dryrun", "-n", "--summary", "--unlock"} & set(words):
            return False
        return Path(process.cwd()) == Path.cwd()
    return False  # ended while it was looked at, or somebody else's


def _queue() -> dict[str, str]:
    if shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A %T"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except subprocess.TimeoutExpired:
        return {}  # a controller that does not answer; what runs is then told by its notes alone
    return dict(line.split() for line in asked.stdout.splitlines() if " " in line.strip())
