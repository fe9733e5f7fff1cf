"""The journal of a directory: which jobs Snakemake's runs began, finished and failed there.

The logger plugin appends a line for each such event; `status` reads them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from logging import LogRecord
from pathlib import Path
from typing import Any

import psutil
from snakemake_interface_logger_plugins.common import LogEvent

JOURNAL = Path(".snakemake/blockcoupling.jsonl")


@dataclass(frozen=True)
class Run:
    """A run of Snakemake.

    Attributes:
        process: Its process id.
        host: The machine that it ran on.
        started: When that process started, in seconds of the epoch.
    """

    process: int
    host: str
    started: float

    @property
    def here(self) -> bool:
        """Whether it was started on this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether its process still runs on this machine."""
        with suppress(psutil.Error):
            process = psutil.Process(self.process)
            same = self.here and process.create_time() == self.started
            return same and process.status() != psutil.STATUS_ZOMBIE
        return False


@dataclass(frozen=True)
class Begun:
    """A job that has begun and not ended.

    Attributes:
        since: When, in seconds of the epoch.
        slurm: The comment that it has in Slurm's queue, if it is there.
        last: Whether it is of the last run.
    """

    since: float
    slurm: str = ""
    last: bool = True


@dataclass(frozen=True)
class Failure:
    """A job that failed: when, in seconds of the epoch, and why, if Snakemake or Slurm says so."""

    time: float
    message: str = ""


@dataclass(frozen=True)
class Jobs:
    """What the journal says.

    Attributes:
        run: The last run, if it has not ended as far as the journal knows.
        begun: Jobs that have begun and not ended, by the first of their outputs.
        failed: Jobs whose last attempt failed, likewise.
    """

    run: Run | None = None
    begun: Mapping[str, Begun] = field(default_factory=dict)
    failed: Mapping[str, Failure] = field(default_factory=dict)


class Journal:
    """Appends the events of one run."""

    def __init__(self, path: Path = JOURNAL) -> None:
        self._path = path
        self._outputs: dict[int, str] = {}
        self._opened = False

    def note(self, record: LogRecord) -> None:
        """Write down one event of Snakemake's logger; other records are passed over."""
        event, about = getattr(record, "event", None), record.__dict__
        if event == LogEvent.RUN_INFO:
            # Only now does the directory belong to this run: one that finds it locked ends before.
            self._opened = True
            started = psutil.Process().create_time()
            run = {"process": os.getpid(), "host": socket.gethostname(), "started": started}
            self._write(event="run", **run)
        elif event == LogEvent.JOB_INFO and about["output"]:
            self._outputs[about["jobid"]] = output = about["output"][0]
            comment = in_slurm(about["rule_name"], about["wildcards"])
            self._write(event="begun", output=output, slurm=comment)
        elif event == LogEvent.JOB_FINISHED and about["job_id"] in self._outputs:
            self._write(event="finished", output=self._outputs[about["job_id"]])
        elif event == LogEvent.JOB_ERROR and about["output"]:
            self._write(event="failed", output=about["output"][0], message=about["rule_msg"])

    def close(self) -> None:
        """Write down that the run has ended."""
        if self._opened:
            self._write(event="end")
        self._opened = False

    def _write(self, **line: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **line}) + "\n")


def in_slurm(rule: str, wildcards: Mapping[str, str]) -> str:
    """The comment by which Slurm's queue lists a job that Snakemake has submitted."""
    values = "_".join(wildcards.values()).replace("/", "_")
    return f"rule_{rule}_wildcards_{values}" if values else f"rule_{rule}"


def read(path: Path = JOURNAL) -> Jobs:
    """Read the journal of the working directory; nothing where there is none."""
    run: Run | None = None
    begun: dict[str, Begun] = {}
    failed: dict[str, Failure] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:  # a line that is being written, or was cut off by a kill
            continue
        output = event.get("output", "")
        match event["event"]:
            case "run":
                run = Run(event["process"], event["host"], event["started"])
                begun = {name: Begun(job.since, job.slurm, False) for name, job in begun.items()}
            case "end":
                run = None
            case "begun":
                begun[output] = Begun(event["time"], event["slurm"])
                failed.pop(output, None)
            case "finished":
                begun.pop(output, None)
            case "failed":
                begun.pop(output, None)
                failed[output] = Failure(event["time"], event["message"])
    return Jobs(run, begun, failed)
