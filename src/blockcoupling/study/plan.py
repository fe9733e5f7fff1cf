"""Estimates of what a study needs, by step and model, before anything runs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockcoupling.config.steps import Step, steps
from blockcoupling.config.study import Study
from blockcoupling.study.clean import bytes_of
from blockcoupling.study.needs import Needs, needs_of
from blockcoupling.study.rates import rates_of
from blockcoupling.study.time_left import seconds_taken
from blockcoupling.study.together import EXTRACT_TOGETHER, chunk_needs, datasets_needs
from blockcoupling.wording import aligned

_IN_MINUTES = ("took_hours", "planned_hours")


def plan_of(study: Study) -> dict[str, Any]:
    """Estimates for all jobs that belong to a model, as plain JSON.

    Prompts, catalog, statistics, figures and report are omitted: minutes and 3 GB each.

    Returns:
        `steps`, a list of: `step`, `model`, `jobs`; of its largest job `memory_gb`, `gpus`,
        `gpu_memory_gb`, `threads` and `hours`; of all its jobs `total_hours` (one after another)
        and `disk_gb`; of those that have run `done`, `took_hours`, and `planned_hours` as
        estimated now. And `totals`: `jobs`, `memory_gb`, `gpu_memory_gb` (of the largest job),
        `hours`, `core_hours`, `gpu_hours`, `disk_gb`, `done`, `took_hours`, `planned_hours`, and
        `on_disk_gb`: what its results take now. `rates`: where the rates come from.
        GB are 2^30 bytes.
    """
    lines = []
    everything: list[_Job] = []
    for step, model, jobs in _lines(study):
        everything += jobs
        lines.append(_line(step, model, jobs))
    needs = [job.needs for job in everything]
    totals = {
        "jobs": len(needs),
        "memory_gb": _gb(max(job.mem_mb for job in needs)),
        "gpu_memory_gb": _gb(max(job.gpu_mb for job in needs)),
        "hours": _hours(sum(job.expected for job in needs)),
        "core_hours": _hours(sum(job.expected * job.threads for job in needs)),
        "gpu_hours": _hours(sum(job.expected * job.gpus for job in needs)),
        "disk_gb": _gb(sum(job.disk_mb for job in needs)),
        **_taken(everything),
        "on_disk_gb": _gb(bytes_of([study.results]) / 2**20),
    }
    source = rates_of(study).source(any(job.gpus for job in needs))
    return {"study": study.study, "steps": lines, "totals": totals, "rates": source}


def as_table(plan: dict[str, Any]) -> str:
    """The estimates as a table."""
    head = [
        *("step", "model", "jobs", "memory/GB", "GPUs", "GPU memory/GB", "cores"),
        *("hours each", "hours", "disk/GB", "done", "took/min", "planned/min"),
    ]
    total = plan["totals"]
    shown = len(head) if total["done"] else head.index("done")
    rows = [
        [_cell(60 * each if key in _IN_MINUTES else each) for key, each in step.items()][:shown]
        for step in plan["steps"]
    ]
    gpu = (
        f"; {_cell(total['gpu_hours'])} on a GPU of at least {_cell(total['gpu_memory_gb'])} GB"
        if total["gpu_hours"]
        else ""
    )
    return "\n".join(
        [
            *aligned([head[:shown], *rows], left=2),
            "",
            f"{total['jobs']} jobs, {_cell(total['hours'])} hours one after another"
            f" ({_cell(total['core_hours'])} core hours{gpu});"
            f" {_cell(total['memory_gb'])} GB of memory for the largest, "
            f"{_cell(total['disk_gb'])} GB on disk when it has run,"
            f" {_cell(total['on_disk_gb'])} GB now.",
            *([_finished(total)] if total["done"] else []),
            f"Time: {plan['rates']}.",
            "Prompts, catalog, statistics, figures and the report take minutes more.",
        ]
    )


def _finished(total: dict[str, Any]) -> str:
    took, planned = (_cell(60 * total[each]) for each in _IN_MINUTES)
    return f"{total['done']} jobs have run: they took {took} minutes; {planned} were planned."


@dataclass(frozen=True)
class _Job:
    """What a job asks for, and the seconds that it took, if it has run."""

    needs: Needs
    took: float | None


def _lines(study: Study) -> Iterator[tuple[str, str, list[_Job]]]:
    """Step, model and jobs; jobs that share a process are one."""
    chunks = study.chunks()
    sharing = {model for models in chunks.values() for model in models}
    for chunk, models in chunks.items():
        about = f"{models[0]} to {models[-1]}" if len(models) > 1 else models[0]
        yield "together", about, [_job(study, "together", [chunk], chunk_needs(study, chunk))]
    for step in steps():
        if step.needs is not None:
            for model, jobs in _by_model(study, step).items():
                if model not in sharing:
                    yield step.name, model, jobs


def _by_model(study: Study, step: Step) -> dict[str, list[_Job]]:
    """The jobs of a step, by model."""
    found: dict[str, list[_Job]] = {}
    if step.name == "extract" and study.together.datasets:
        for model in study.models:
            found[model] = [
                _job(study, EXTRACT_TOGETHER, [model, each], datasets_needs(study, model, each))
                for each in study.checkpoints(model)
            ]
        return found
    for job in step.wildcards(study):
        needs = needs_of(study, step.name, job)
        found.setdefault(job["model"], []).append(_job(study, step.name, job.values(), needs))
    return found


def _job(study: Study, rule: str, of: Iterable[str], needs: Needs) -> _Job:
    """A job, with what its benchmark file says."""
    file = Path(study.results, "benchmarks", rule.rstrip("_"), *of)
    took = seconds_taken(file.with_name(f"{file.name}.tsv"))
    return _Job(needs, took[-1] if took else None)


def _line(step: str, model: str, jobs: list[_Job]) -> dict[str, Any]:
    needs = [job.needs for job in jobs]
    return {
        "step": step,
        "model": model,
        "jobs": len(needs),
        "memory_gb": _gb(max(job.mem_mb for job in needs)),
        "gpus": max(job.gpus for job in needs),
        "gpu_memory_gb": _gb(max(job.gpu_mb for job in needs)),
        "threads": max(job.threads for job in needs),
        "hours": _hours(max(job.expected for job in needs)),
        "total_hours": _hours(sum(job.expected for job in needs)),
        "disk_gb": _gb(sum(job.disk_mb for job in needs)),
        **_taken(jobs),
    }


def _taken(jobs: Iterable[_Job]) -> dict[str, Any]:
    """Of the jobs that have run: what they took, and what is planned for them."""
    done = [(job.needs.expected, job.took) for job in jobs if job.took is not None]
    return {
        "done": len(done),
        "took_hours": _hours(sum(took for _, took in done) / 60),
        "planned_hours": _hours(sum(planned for planned, _ in done)),
    }


def _gb(megabytes: float) -> float:
    return round(megabytes / 1024, 1)


def _hours(minutes: float) -> float:
    return round(minutes / 60, 4)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 100 else f"{round(value, 2):g}"
