"""What is running in the working directory: Snakemake, its jobs here, its jobs in Slurm."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blockcoupling.study.journal import Jobs, read

RUNNING, QUEUED = "running", "queued"


@dataclass(frozen=True)
class Now:
    """What is running in the working directory.

    Attributes:
        jobs: What the journal says.
        alive: Whether the last run of Snakemake still runs on this machine.
        queue: The state of this user's jobs in Slurm that work in this directory, by comment.
    """

    jobs: Jobs = field(default_factory=Jobs)
    alive: bool = False
    queue: Mapping[str, str] = field(default_factory=dict)

    def state(self, output: str) -> str | None:
        """The state of the job whose first output this is: `running`, `queued`, or None.

        A job that a killed Snakemake had begun does not run any more, unless Slurm's queue has it.
        """
        begun = self.jobs.begun.get(output)
        if begun is None:
            return None
        if begun.slurm in self.queue:
            return QUEUED if self.queue[begun.slurm] == "PENDING" else RUNNING
        return RUNNING if self.alive and begun.last else None

    def since(self, output: str) -> float | None:
        """When the job whose first output this is began, in seconds of the epoch."""
        begun = self.jobs.begun.get(output)
        return None if begun is None else begun.since

    @property
    def processes(self) -> list[int]:
        """The process id of the Snakemake that runs here, if one does."""
        return [self.jobs.run.process] if self.jobs.run and self.alive else []

    @property
    def interrupted(self) -> bool:
        """Whether the last run has not ended, and does not run on this machine."""
        return self.jobs.run is not None and not self.alive


def now() -> Now:
    """Look at what is running in the working directory."""
    jobs = read()
    alive = jobs.run is not None and jobs.run.alive
    return Now(jobs, alive, _queue() if jobs.begun else {})


def _queue() -> dict[str, str]:
    if shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%T|%Z|%k"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except subprocess.TimeoutExpired:
        return {}  # the journal alone then says what runs
    jobs = (line.split("|", 2) for line in asked.stdout.splitlines() if line.count("|") >= 2)
    here = {str(Path.cwd()), str(Path.cwd().resolve())}
    return {comment: state for state, place, comment in jobs if place in here}
