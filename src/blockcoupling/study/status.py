"""The state of a study's jobs: done, running, failed, out of date; and how long the rest takes."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from blockcoupling.config.steps import steps
from blockcoupling.config.study import Study
from blockcoupling.study.journal import Failure
from blockcoupling.study.planned import Planned
from blockcoupling.study.running import QUEUED, RUNNING, Now
from blockcoupling.study.screen import last_lines
from blockcoupling.study.together import EXTRACT_TOGETHER, rule_needs

DONE, FAILED, STALE, WAITING = "done", "failed", "stale", "waiting"
STATES = (DONE, RUNNING, QUEUED, FAILED, STALE, WAITING)
_START = 10.0
"""Seconds that the shortest job takes: Python and Snakemake start."""


@dataclass(frozen=True)
class JobStatus:
    """A job and its state.

    Attributes:
        job: The job.
        state: `done`; `running`; `queued`: waiting in Slurm's queue; `failed`; `stale`: all of its
            files exist, but their inputs or settings have changed; `waiting`: some are missing.
        why: The reason of a state `failed` or `stale`.
        elapsed: Seconds since a running job began.
        prompts: The number of finished prompts and of all prompts, of a job that has begun some.
        left: The estimated number of seconds until it ends.
    """

    job: Planned
    state: str
    why: str = ""
    elapsed: float | None = None
    prompts: tuple[int, int] | None = None
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
    """

    study: str
    jobs: Sequence[JobStatus]
    seconds: Mapping[tuple[str, str | None], float] = field(default_factory=dict)
    now: Now = field(default_factory=Now)

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


def status(study: Study, jobs: Sequence[Planned], planned_at: float, now: Now) -> Status:
    """Find the state of each job.

    Args:
        study: The study.
        jobs: All of its jobs, as Snakemake would plan them at that time.
        planned_at: In seconds of the epoch.
        now: What is running in the directory, looked at before planning: a job that ends in
            between then counts as running, not as stale.
    """
    seconds = _seconds(jobs)
    usual = _Usual(study, seconds, jobs)
    return Status(
        study=study.study,
        jobs=[_status(study, job, planned_at, now, usual) for job in jobs],
        seconds={key: fmean(values) for key, values in seconds.items()},
        now=now,
    )


def _status(study: Study, job: Planned, planned_at: float, now: Now, usual: _Usual) -> JobStatus:
    key = job.outputs[0]
    if (state := now.state(key)) is not None:
        since = now.since(key)
        elapsed = None if since is None or state == QUEUED else max(0.0, time.time() - since)
        prompts, lately = _prompts(study, job, since)
        left = _left(usual(job), elapsed, prompts, lately)
        return JobStatus(job, state, elapsed=elapsed, prompts=prompts, left=left)
    made = _times(job.outputs)
    whole = len(made) == len(job.outputs)
    if not job.reason or (whole and min(made) > planned_at):
        return JobStatus(job, DONE)
    if failure := now.jobs.failed.get(key):
        return JobStatus(job, FAILED, _cause(failure, job.log), left=usual(job))
    if whole:
        return JobStatus(job, STALE, job.reason.split(":")[0].strip(), left=usual(job))
    prompts, _ = _prompts(study, job)
    begun = prompts if prompts and prompts[0] else None
    share = 1 - begun[0] / begun[1] if begun else 1
    return JobStatus(job, WAITING, prompts=begun, left=share * usual(job))


def _cause(failure: Failure, log: str | None) -> str:
    """Why a job failed: its own error message, else Slurm's or Snakemake's."""
    lines = last_lines(log) if log else []
    if lines and lines[0].startswith("error: "):
        return lines[0].removeprefix("error: ")
    last = (
        lines[-1] if lines else "the job ended without an error message (killed, or out of memory)"
    )
    return failure.message or last


def _times(files: Iterable[str | Path]) -> list[float]:
    """The modification times of those files that exist; Snakemake may remove some meanwhile."""
    found = []
    for file in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            found.append(Path(file).stat().st_mtime)
    return found


# ------------------------------------------------------------------------------- prompts and time


def _prompts(
    study: Study, job: Planned, since: float | None = None
) -> tuple[tuple[int, int] | None, int]:
    """The finished prompts and all prompts of a job, and how many were finished since then."""
    row = next((each for each in steps() if each.name == job.rule), None)
    if row is None or row.parts is None:
        return None, 0
    of = job.wildcards
    listed = study.results / "prompts" / f"{of['dataset']}.jsonl"
    if not listed.is_file():
        return None, 0
    total = sum(1 for line in listed.read_text(encoding="utf-8").splitlines() if line.strip())
    if row.prompts is not None:
        total = min(total, row.prompts(study) or total)
    parts = study.results / row.parts.format(**of)
    # Parts that are older than the job's plan were measured with other settings.
    plan = parts / "plan.json"
    begun = max(_times([plan]), default=0.0)
    made = _times(parts.glob("[!.]*.zarr/zarr.json"))
    done = min(total, sum(each >= begun for each in made))
    return (done, total), sum(each >= (since or 0.0) for each in made)


def _left(
    usual: float,
    elapsed: float | None,
    prompts: tuple[int, int] | None,
    lately: int,
) -> float:
    """Seconds until a running job ends, from its prompts or from what is usual."""
    if elapsed is None:
        return usual
    if prompts is None:
        return max(0.0, usual - elapsed)
    done, total = prompts
    if lately:  # parts of an earlier attempt took none of this time
        return (total - done) * elapsed / lately
    return max(0.0, usual * (total - done) / total - elapsed)


def _seconds(jobs: Sequence[Planned]) -> dict[tuple[str, str | None], list[float]]:
    """The seconds of finished jobs by step and model, from Snakemake's benchmark files."""
    found: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    for job in jobs:
        if job.benchmark is not None and Path(job.benchmark).is_file():
            head, *rows = Path(job.benchmark).read_text().splitlines()
            place = head.split("\t").index("s") if head else 0
            key = (job.rule, job.wildcards.get("model"))
            found[key] += [float(row.split("\t")[place]) for row in rows]
    return found


class _Usual:
    """The usual seconds of a job: the mean of its step and model, else an estimate.

    An estimate is scaled by what the step took for other models.
    """

    def __init__(
        self,
        study: Study,
        seconds: Mapping[tuple[str, str | None], Sequence[float]],
        jobs: Sequence[Planned],
    ) -> None:
        self._study, self._seconds = study, seconds
        took: dict[str, float] = defaultdict(float)
        estimated: dict[str, float] = defaultdict(float)
        counted: set[tuple[str, str | None]] = set()
        for job in jobs:
            key = (job.rule, job.wildcards.get("model"))
            if key in seconds and key not in counted:
                counted.add(key)
                took[job.rule] += fmean(seconds[key])
                estimated[job.rule] += _expected(study, job)
        self._factor = {rule: took[rule] / estimated[rule] for rule in took}

    def __call__(self, job: Planned) -> float:
        if own := self._seconds.get((job.rule, job.wildcards.get("model"))):
            return fmean(own)
        return _expected(self._study, job) * self._factor.get(job.rule, 1.0)


def _expected(study: Study, job: Planned) -> float:
    """The estimated seconds of a job, from its model's size."""
    return _START + 60 * rule_needs(study, job.rule, job.wildcards).expected


# ------------------------------------------------------------------------------------- as JSON


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
                "prompts_done": each.prompts[0] if each.prompts else None,
                "prompts": each.prompts[1] if each.prompts else None,
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
