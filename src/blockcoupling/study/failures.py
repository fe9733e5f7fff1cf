"""Why jobs have failed: what Snakemake wrote into its logs, and the jobs into theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from blockcoupling.study.planned import Planned

_LOGS = Path(".snakemake/log")
_SLURM_LOGS = Path(".snakemake/slurm_logs")
_TIME = re.compile(r"^\[(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\]$", re.M)
_ERROR = re.compile(r"^Error in rule \w+:\n((?: {4}.*\n)+)", re.M)
_OF_SLURM = re.compile(r"slurmstepd: error: .*|.*\boom[-_ ]kill.*", re.I)
_LATE = 2
"""Seconds that a log may have been written to after its job's failure was noted."""


@dataclass(frozen=True)
class Failure:
    """A job that failed.

    Attributes:
        time: When, in seconds of the epoch.
        message: What Snakemake or Slurm says.
        slurm: The job's number in Slurm.
    """

    time: float
    message: str = ""
    slurm: str | None = None


def failures() -> dict[str, Failure]:
    """The last failure that Snakemake noted of each job, by the first of the job's outputs."""
    found: dict[str, Failure] = {}
    for log in sorted(_LOGS.glob("*.log")):
        text = log.read_text(errors="replace")
        for error in _ERROR.finditer(text):
            fields = dict(
                line.strip().split(": ", 1) for line in error[1].splitlines() if ": " in line
            )
            if "output" not in fields:
                continue
            before = [each[1] for each in _TIME.finditer(text, 0, error.start())]
            time = datetime.strptime(before[-1], "%a %b %d %H:%M:%S %Y").timestamp()
            message = fields.get("message", "None")
            found[fields["output"].split(", ")[0]] = Failure(
                time, "" if message == "None" else message, fields.get("external_jobid")
            )
    return found


def still_counts(failure: Failure, job: Planned) -> bool:
    """Whether nothing has happened to the job since: no later attempt, no other output."""
    touched = times([*job.outputs, *([job.log] if job.log else [])])
    return failure.time + _LATE >= max(touched, default=0)


def times(files: Iterable[str | Path]) -> list[float]:
    """When each file was written to, of those that are there (Snakemake removes some meanwhile)."""
    found = []
    for file in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            found.append(Path(file).stat().st_mtime)
    return found


def reason(failure: Failure, log: str | None) -> str:
    """Why a job failed, in a sentence: its own, else Slurm's, else Snakemake's."""
    lines = _lines(log)
    if own := [line for line in lines if line.startswith("error: ")]:
        return own[-1].removeprefix("error: ")
    if of_slurm := _of_slurm(failure.slurm):
        return of_slurm
    if failure.message:
        return failure.message
    return lines[-1] if lines else "it ended without a word: killed, or out of memory"


def _lines(log: str | None) -> Sequence[str]:
    if log is None or not Path(log).is_file():
        return []
    text = Path(log).read_text(errors="replace")
    return [line for line in text.splitlines() if line.strip()]


def _of_slurm(number: str | None) -> str | None:
    """What Slurm wrote at the end of a job: out of memory, out of time, cancelled."""
    if number is None:
        return None
    logs: Iterable[Path] = _SLURM_LOGS.rglob(f"{number}.log")
    said = [line for log in logs for line in _OF_SLURM.findall(log.read_text(errors="replace"))]
    return said[-1].strip() if said else None
