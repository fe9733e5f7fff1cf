"""The state of a study for a reader: a table, then the jobs that need attention."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from blockcoupling.study.running import QUEUED, RUNNING
from blockcoupling.study.status import DONE, FAILED, STALE, STATES, WAITING, JobStatus, Status
from blockcoupling.wording import MISSING, duration

_STYLES = {DONE: "green", RUNNING: "cyan", QUEUED: "blue", FAILED: "bold red", STALE: "yellow"}
_STUDY = "(study)"
_SHOWN = 20
"""Jobs of one state that are listed one by one."""


def page(found: Status) -> RenderableType:
    """Lay out a table of steps and models, then the running, failed and stale jobs."""
    parts: list[RenderableType] = [_table(found)]
    for title, lines in (
        ("Running", [_running(each) for each in found.of(RUNNING, QUEUED)]),
        ("Failed", [_failed(each) for each in found.of(FAILED)]),
        ("Stale: the next run makes them again", _stale(found.of(STALE))),
        ("Begun and not finished", [_begun(each) for each in found.of(WAITING) if each.prompts]),
        ("Notes", [f"  {note}" for note in found.notes]),
    ):
        if lines:
            more = [f"  and {len(lines) - _SHOWN} more"] * (len(lines) > _SHOWN)
            parts += ["", Text(title, "bold"), *map(Text, [*lines[:_SHOWN], *more])]
    return Group(*parts, "", Text(summary(found)), Text(_who(found)))


def _table(found: Status) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("step", overflow="fold")
    for name in ("done", *STATES[1:], "each", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for model, step, jobs in _rows(found):
        counts = Counter(each.state for each in jobs)
        cells = [Text(f"{counts[DONE]}/{len(jobs)}", _STYLES[DONE] if counts[DONE] else "")]
        cells += [
            Text(str(counts[state]) if counts[state] else "", _STYLES.get(state, ""))
            for state in STATES[1:]
        ]
        each = found.seconds.get((step, model if model != _STUDY else None))
        left = sum(each.left for each in jobs)
        times = [duration(each) if each else "", duration(left) if left else ""]
        table.add_row(model, step, *cells, *times)
    return table


def _rows(found: Status) -> Iterator[tuple[str, str, Sequence[JobStatus]]]:
    """One row per step of a model, or one row for all steps if all jobs have the same state."""
    groups = found.by_step()
    for model in dict.fromkeys(model for model, _ in groups):
        own = {step: jobs for (of, step), jobs in groups.items() if of == model}
        name = _STUDY if model is None else model
        states = {each.state for jobs in own.values() for each in jobs}
        if len(states) == 1 and len(own) > 1:
            yield name, "all steps", [each for jobs in own.values() for each in jobs]
        else:
            for step, jobs in own.items():
                yield name, step, jobs


def _name(each: JobStatus) -> str:
    return " ".join([each.step, *each.job.wildcards.values()])


def _running(each: JobStatus) -> str:
    if each.state == QUEUED:
        return f"  {_name(each)}: waits in Slurm's queue"
    prompts = f", {_prompts(each)}" if each.prompts else ""
    left = f", about {duration(each.left)} left" if each.left else ""
    return f"  {_name(each)}: for {duration(each.elapsed)}{prompts}{left}"


def _begun(each: JobStatus) -> str:
    return f"  {_name(each)}: {_prompts(each)}; the next run resumes there"


def _prompts(each: JobStatus) -> str:
    return f"{each.prompts.done} of {each.prompts.total} prompts" if each.prompts else ""


def _failed(each: JobStatus) -> str:
    return f"  {_name(each)}: {each.why}\n    {each.job.log or MISSING}"


def _stale(jobs: Sequence[JobStatus]) -> list[str]:
    """One line per reason: one edit makes many jobs stale."""
    steps: dict[str, Counter[str]] = defaultdict(Counter)
    for each in jobs:
        steps[each.why][each.step] += 1
    jobs_of = {
        why: ", ".join(f"{n} {step}" for step, n in own.items()) for why, own in steps.items()
    }
    return [f"  {why[:1].lower()}{why[1:]}: {which}" for why, which in jobs_of.items()]


def summary(found: Status) -> str:
    """Sum the study up in one line."""
    counts = [f"{found.counts[state]} {state}" for state in STATES if found.counts[state]]
    line = f"{len(found.jobs)} jobs: {', '.join(counts)}"
    if not found.left:
        return line
    at_once = f" with {found.at_once} at once" if found.at_once > 1 else " one after another"
    return f"{line}; about {duration(found.left)} left{at_once}"


def _who(found: Status) -> str:
    """Whether Snakemake is at work, and what to do if it was killed."""
    run = found.now.jobs.run
    if run is None:
        return "Snakemake is not running here"
    if found.now.alive:
        return f"Snakemake is running here (process {run.process})"
    if run.here:
        return (
            f"The last run was killed (process {run.process}): snakemake --unlock, then the same "
            "command again"
        )
    return (
        f"The last run started on {run.host} (process {run.process}) and has not ended. If it was "
        "killed there: snakemake --unlock, then the same command again"
    )
