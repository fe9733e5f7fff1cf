"""How far a run of Snakemake is and how long it still takes, from the events of its logger."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import MutableSequence
from dataclasses import dataclass, field
from logging import LogRecord
from statistics import fmean, median

from snakemake_interface_logger_plugins.common import LogEvent

_ENOUGH = 3
"""Jobs that must have ended before a time is estimated."""
_RECENT = 5
"""Jobs of a rule whose mean is what its next job takes: a machine gets busy, and idle again."""


@dataclass(frozen=True)
class Running:
    """A job that runs: its rule, what it does, and when it began, in seconds of the epoch."""

    rule: str
    what: str
    since: float


@dataclass
class Course:
    """The course of a run.

    Attributes:
        total: Number of jobs of the run; 0 before Snakemake has planned it.
        done: Number of those that have ended well.
        waiting: By rule, how many jobs have not ended.
        running: The jobs that run, by Snakemake's number.
        failed: The jobs that failed and have not been tried again, likewise.
        at_once: Number of jobs that ran when the last one ended.
        took: By rule, the seconds of the jobs that ended last.
    """

    total: int = 0
    done: int = 0
    waiting: Counter[str] = field(default_factory=Counter)
    running: dict[int, Running] = field(default_factory=dict)
    failed: dict[int, Running] = field(default_factory=dict)
    at_once: int = 1
    took: dict[str, MutableSequence[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=_RECENT))
    )

    def note(self, record: LogRecord) -> None:
        """Take in one event of Snakemake's logger; other records change nothing."""
        event, about = getattr(record, "event", None), record.__dict__
        if event == LogEvent.RUN_INFO:
            self.waiting = Counter(about["stats"])
            self.total = self.waiting.pop("total")
        elif event == LogEvent.JOB_INFO:
            what = about["rule_msg"] or about["rule_name"]
            self.failed.pop(about["jobid"], None)
            self.running[about["jobid"]] = Running(about["rule_name"], what, record.created)
        elif event == LogEvent.JOB_ERROR and about["jobid"] in self.running:
            self.failed[about["jobid"]] = self.running.pop(about["jobid"])
        elif event == LogEvent.JOB_FINISHED and about["job_id"] in self.running:
            self.at_once = len(self.running)
            ended = self.running.pop(about["job_id"])
            self.waiting[ended.rule] -= 1
            self.took[ended.rule].append(record.created - ended.since)
        elif event == LogEvent.PROGRESS:
            self.done, self.total = about["done"], about["total"]

    def left(self, now: float | None = None) -> float | None:
        """Seconds until the run ends, with as many jobs at once as now; None: too early to tell.

        A job takes as long as the last ones of its rule took, or as the median rule if none has
        ended.
        """
        usual = {rule: fmean(list(took)) for rule, took in list(self.took.items())}
        if sum(len(took) for took in list(self.took.values())) < _ENOUGH:
            return None
        now = time.time() if now is None else now
        other = median(usual.values())
        running = list(self.running.values())
        work = sum(n * usual.get(rule, other) for rule, n in list(self.waiting.items()))
        begun = sum(min(now - job.since, usual.get(job.rule, other)) for job in running)
        return max(0.0, work - begun) / max(self.at_once, len(running))
