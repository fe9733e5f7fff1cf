"""What a run of Snakemake shows in a log or a pipe: plain lines, a job each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from logging import LogRecord
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from snakemake_interface_logger_plugins.common import LogEvent

from blockcoupling.config.steps import EXPLORER
from blockcoupling.study.course import Course
from blockcoupling.wording import duration

if TYPE_CHECKING:
    from blockcoupling.config.study import Study

_LAST_LINES = 8
_FINDINGS = 3


class Screen:
    """Writes what happens in a run, line by line.

    Args:
        course: The run's course, up to date whenever a record is shown.
        stream: Where to write to.
        own_words: Whether Snakemake's text of each event is written as it is.
    """

    def __init__(self, course: Course, stream: TextIO, own_words: bool = False) -> None:
        self._course, self._stream, self._own_words = course, stream, own_words

    def begin(self) -> None:
        """Show that Snakemake plans the jobs of a run."""

    def show(self, record: LogRecord, text: str) -> None:
        """Show one record of Snakemake's logger.

        Args:
            record: Snakemake's.
            text: The same as Snakemake would write it.
        """
        event = getattr(record, "event", None)
        if self._own_words:
            self.write(text)
        elif event == LogEvent.JOB_ERROR:
            self.write(failure(self._course, record), "red")
        elif event == LogEvent.JOB_INFO:
            job = record.__dict__["jobid"]
            self.write(f"{_clock(record)} job {job}: {self._course.running[job].what}")
        elif event == LogEvent.PROGRESS:
            self.write(f"{_clock(record)} {progress(self._course)}")
        elif not _repeated(record, self._course):
            self.write(text)

    def write(self, text: str, style: str = "") -> None:
        """Write a text, unless it is empty; a style is for terminals."""
        if text.strip():
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Say at the end of the run what is left to do."""
        if failed := len(self._course.failed):
            jobs = "1 job" if failed == 1 else f"{failed} jobs"
            self.write(
                f"{jobs} failed. Fix what the logs above say, then type the same command again: "
                "finished work is kept."
            )
            self._course.failed.clear()


def _repeated(record: LogRecord, course: Course) -> bool:
    """Whether a record says what others say: a job's exception comes with the job's error."""
    event = getattr(record, "event", None)
    if event == LogEvent.ERROR:
        return bool(course.running) and record.__dict__.get("exception") == "RuleException"
    return event in (LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED)


def progress(course: Course) -> str:
    """How many jobs are done, and how long the others will take."""
    line = f"{course.done} of {course.total} jobs"
    left = course.left()
    if left is None or course.done == course.total:
        return line
    return f"{line} · about {duration(left) if left >= 60 else f'{left:.0f} s'} left"


def failure(course: Course, record: LogRecord) -> str:
    """Which job failed, why as far as Slurm says, and the end of its log."""
    about = record.__dict__
    job = course.failed.get(about["jobid"])
    lines = [f"{_clock(record)} Failed: {job.what if job else about['rule_name']}"]
    if message := about["rule_msg"]:
        lines.append(f"  {message}")
    for log in about["log"]:
        if last := last_lines(log):
            lines += [f"  The end of {log}:", *(f"    {line}" for line in last)]
            break
    else:
        logs = ", ".join(about["log"]) or "(none)"
        lines.append(f"  Its log is empty ({logs}): it was killed, or ran out of memory.")
    return "\n".join(lines)


def last_lines(log: str | Path) -> Sequence[str]:
    """The last lines of a job's log; from its error message on, if it has one."""
    with suppress(OSError):
        lines = [
            each for each in Path(log).read_text(errors="replace").splitlines() if each.strip()
        ]
        errors = [place for place, line in enumerate(lines) if line.startswith("error: ")]
        return lines[errors[-1] :] if errors else lines[-_LAST_LINES:]
    return []


def ending(study: Study) -> str:
    """What a finished run has found, and where its results are."""
    findings = study.results / "findings.txt"
    found = findings.read_text(encoding="utf-8").splitlines() if findings.is_file() else []
    results = {
        "Report": study.results / "report.html",
        "Explorer": study.results / EXPLORER,
        "Catalog": study.catalog,
    }
    paths = [f"{name}: {path}" for name, path in results.items() if path.exists()]
    return "\n".join([*found[:_FINDINGS], *paths])


def _clock(record: LogRecord) -> str:
    return time.strftime("%H:%M:%S", time.localtime(record.created))
