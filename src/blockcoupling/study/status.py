"""The state of a study's jobs: done, running, failed, out of date; and how long the rest takes."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blockcoupling.catalog import open_catalog
from blockcoupling.catalog.mixed import mixed
from blockcoupling.config.steps import steps
from blockcoupling.config.study import Study
from blockcoupling.errors import UserError
from blockcoupling.study.journal import Failure
from blockcoupling.study.planned import Planned
from blockcoupling.study.running import QUEUED, RUNNING, Now
from blockcoupling.study.screen import last_lines
from blockcoupling.study.time_left import Prompts, Usual, prompts_of, seconds_left, times
from blockcoupling.study.together import EXTRACT_TOGETHER

DONE, FAILED, STALE, WAITING = "done", "failed", "stale", "waiting"
STATES = (DONE, RUNNING, QUEUED, FAILED, STALE, WAITING)


@dataclass(frozen=True)
class JobStatus:
    """A job and its state.

    Attributes:
        job: The job.
        state: `done`; `running`; `queued`: waiting in Slurm's queue; `failed`; `stale`: all of its
            files exist, but their inputs or settings have changed; `waiting`: some are missing.
        why: The reason of a state `failed` or `stale`.
        elapsed: Seconds since a running job began.
        prompts: How far it is among its prompts, if it has begun some.
        left: The estimated number of seconds until it ends.
    """

    job: Planned
    state: str
    why: str = ""
    elapsed: float | None = None
    prompts: Prompts | None = None
    left: float = 0.0

    @property
    def step(self) -> str:
        """Its rule."""
        return self.job.rule

    @property
    def model(self) -> str | None:
        """Its model; None for a job of the whole study."""
        return self.job.wildcards.get("model")


@dataclass(frozen=True)
class Status:
    """The state of a study.

    Attributes:
        study: Its name.
        jobs: All of its jobs.
        seconds: The mean seconds of finished jobs, by step and model.
        now: What is running in the directory.
        notes: What is to be known of the results, a sentence each (see `catalog.mixed`).
    """

    study: str
    jobs: Sequence[JobStatus]
    seconds: Mapping[tuple[str, str | None], float] = field(default_factory=dict)
    now: Now = field(default_factory=Now)
    notes: Sequence[str] = ()

    @property
    def counts(self) -> Counter[str]:
        """The number of jobs in each state."""
        return Counter(job.state for job in self.jobs)

    @property
    def at_once(self) -> int:
        """The number of jobs that run now, at least one."""
        return max(1, self.counts[RUNNING])

    @property
    def left(self) -> float:
        """Seconds until the study is done, with as many jobs at once as now."""
        return sum(job.left for job in self.jobs) / self.at_once

    def of(self, *states: str) -> list[JobStatus]:
        """The jobs in some states."""
        return [job for job in self.jobs if job.state in states]

    def by_step(self) -> dict[tuple[str | None, str], list[JobStatus]]:
        """The jobs by model and step, in the order of the work; those of no model come last."""
        groups: dict[tuple[str | None, str], list[JobStatus]] = defaultdict(list)
        for job in self.jobs:
            groups[job.model, job.step].append(job)
        models = [*dict.fromkeys(job.model for job in self.jobs if job.model), None]
        order = {each.name: place for place, each in enumerate(steps())}

        def place(key: tuple[str | None, str]) -> tuple[int, int]:
            own = "extract" if key[1].startswith(EXTRACT_TOGETHER) else key[1]
            return models.index(key[0]), order.get(own, len(order))

        return {key: groups[key] for key in sorted(groups, key=place)}


def status(
    study: Study,
    jobs: Sequence[Planned],
    planned_at: float,
    now: Now,
    notes: Sequence[str] = (),
) -> Status:
    """Find the state of each job.

    Args:
        study: The study.
        jobs: All of its jobs, as Snakemake would plan them at that time.
        planned_at: In seconds of the epoch.
        now: What is running in the directory, looked at before planning: a job that ends in
            between then counts as running, not as stale.
        notes: What is to be known of the results.
    """
    usual = Usual(study, jobs)
    found = [_status(study, job, planned_at, now, usual(job)) for job in jobs]
    return Status(study.study, found, usual.means, now, notes)


def notes(study: Study) -> list[str]:
    """What the results that have been catalogued were made from, if it is not one thing."""
    joins = [study.results / file for row in reversed(steps()) if row.catalog for file in row.files]
    latest = next((file for file in [study.catalog, *joins] if file.is_file()), None)
    if latest is None:
        return []
    try:
        return mixed(open_catalog(latest, allow_outside=True))
    except UserError as error:
        return [str(error)]


def _status(study: Study, job: Planned, planned_at: float, now: Now, usual: float) -> JobStatus:
    key = job.outputs[0]
    if (state := now.state(key)) is not None:
        since = now.since(key)
        elapsed = None if since is None or state == QUEUED else max(0.0, time.time() - since)
        prompts = prompts_of(study, job, since)
        left = seconds_left(usual, elapsed, prompts)
        return JobStatus(job, state, elapsed=elapsed, prompts=prompts, left=left)
    made = times(job.outputs)
    complete = len(made) == len(job.outputs)
    if not job.reason or (complete and min(made) > planned_at):
        return JobStatus(job, DONE)
    if failure := now.jobs.failed.get(key):
        return JobStatus(job, FAILED, _cause(failure, job.log), left=usual)
    if complete:
        return JobStatus(job, STALE, job.reason.split(":")[0].strip(), left=usual)
    prompts = prompts_of(study, job)
    if prompts is None or not prompts.done:
        return JobStatus(job, WAITING, left=usual)
    return JobStatus(job, WAITING, prompts=prompts, left=usual * prompts.share_left)


def _cause(failure: Failure, log: str | None) -> str:
    """Why a job failed: its own error message, else Slurm's or Snakemake's."""
    lines = last_lines(log) if log else []
    if lines and lines[0].startswith("error: "):
        return lines[0].removeprefix("error: ")
    last = (
        lines[-1] if lines else "the job ended without an error message (killed, or out of memory)"
    )
    return failure.message or last


def as_json(found: Status) -> dict[str, Any]:
    """The state of a study as plain JSON."""

    def about(each: JobStatus) -> dict[str, Any]:
        return {"step": each.step, **each.job.wildcards}

    return {
        "study": found.study,
        "jobs": len(found.jobs),
        **{state: found.counts[state] for state in STATES},
        "seconds_left": round(found.left),
        "at_once": found.at_once,
        "snakemake": found.now.processes,
        "interrupted": found.now.interrupted,
        "notes": list(found.notes),
        "steps": [
            {
                "model": model,
                "step": step,
                "jobs": len(jobs),
                **{state: sum(each.state == state for each in jobs) for state in STATES},
                "seconds_each": found.seconds.get((step, model)),
                "seconds_left": round(sum(each.left for each in jobs)),
            }
            for (model, step), jobs in found.by_step().items()
        ],
        "running_jobs": [
            {
                **about(each),
                "state": each.state,
                "seconds": None if each.elapsed is None else round(each.elapsed),
                "prompts_done": each.prompts.done if each.prompts else None,
                "prompts": each.prompts.total if each.prompts else None,
                "seconds_left": round(each.left),
                "log": each.job.log,
            }
            for each in found.of(RUNNING, QUEUED)
        ],
        "failed_jobs": [
            {**about(each), "reason": each.why, "log": each.job.log} for each in found.of(FAILED)
        ],
        "stale_jobs": [{**about(each), "reason": each.why} for each in found.of(STALE)],
    }
