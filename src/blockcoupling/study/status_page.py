"""How a study stands, for a reader: a table and what needs attention, on a terminal in colour."""

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
_SHOWN = 20  # jobs of one state that are told one by one


def page(found: Status) -> RenderableType:
    """A table of steps and models, then each job that runs or failed, then what is stale."""
    parts: list[RenderableType] = [_table(found)]
    for title, lines in (
        ("Running", [_running(each) for each in found.of(RUNNING, QUEUED)]),
        ("Failed", [_failed(each) for each in found.of(FAILED)]),
        ("Stale, made again by the next run", _stale(found.of(STALE))),
        ("Begun and not ended", [_begun(each) for each in found.of(WAITING) if each.prompts]),
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
        told = [duration(each) if each else "", duration(left) if left else ""]
        table.add_row(model, step, *cells, *told)
    return table


def _rows(found: Status) -> Iterator[tuple[str, str, Sequence[JobStatus]]]:
    """A line a step of a model; one line of a model of which all steps stand alike."""
    groups = found.by_step()
    for model in dict.fromkeys(model for model, _ in groups):
        own = {step: jobs for (of, step), jobs in groups.items() if of == model}
        name = _STUDY if model is None else model
        alike = {each.state for jobs in own.values() for each in jobs}
        if len(alike) == 1 and len(own) > 1:
            yield name, "all steps", [each for jobs in own.values() for each in jobs]
        else:
            for step, jobs in own.items():
                yield name, step, jobs


def _name(each: JobStatus) -> str:
    return " ".join([each.step, *each.job.wildcards.values()])


def _running(each: JobStatus) -> str:
    if each.state == QUEUED:
        return f"  {_name(each)}: waits in Slurm's queue"
    prompts = f", {each.prompts[0]} of {each.prompts[1]} prompts" if each.prompts else ""
    left = f", about {duration(each.left)} left" if each.left else ""
    return f"  {_name(each)}: for {duration(each.elapsed)}{prompts}{left}"


def _begun(each: JobStatus) -> str:
    done, total = each.prompts or (0, 0)
    return f"  {_name(each)}: {done} of {total} prompts; the next run goes on from there"


def _failed(each: JobStatus) -> str:
    return f"  {_name(each)}: {each.why}\n    {each.job.log or MISSING}"


def _stale(jobs: Sequence[JobStatus]) -> list[str]:
    """By reason, as one edit makes many jobs stale."""
    steps: dict[str, Counter[str]] = defaultdict(Counter)
    for each in jobs:
        steps[each.why][each.step] += 1
    told = {why: ", ".join(f"{n} {step}" for step, n in own.items()) for why, own in steps.items()}
    return [f"  {why[:1].lower()}{why[1:]}: {which}" for why, which in told.items()]


def summary(found: Status) -> str:
    """All of it in a line."""
    told = [f"{found.counts[state]} {state}" for state in STATES if found.counts[state]]
    line = f"{len(found.jobs)} jobs: {', '.join(told)}"
    if not found.left:
        return line
    at_once = f" with {found.at_once} at once" if found.at_once > 1 else " one after another"
    return f"{line}; about {duration(found.left)} left{at_once}"


def _who(found: Status) -> str:
    """Whether Snakemake is at work, and what to do where it was killed."""
    if found.now.snakemake:
        numbers = ", ".join(map(str, sorted(found.now.snakemake)))
        return f"Snakemake runs here (process {numbers})"
    if found.now.locked:
        return (
            "The directory is locked, and no Snakemake runs on this machine: it runs on another "
            "one, or it was killed. If it was: snakemake --unlock, then the same command again"
        )
    return "No Snakemake runs here"
