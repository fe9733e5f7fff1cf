"""Estimates of what a study needs, by step and model, before anything runs."""

from collections.abc import Iterator
from typing import Any

from blockcoupling.config.steps import Step, steps
from blockcoupling.config.study import Study
from blockcoupling.study.clean import bytes_of
from blockcoupling.study.needs import Needs, needs_of
from blockcoupling.study.together import chunk_needs, datasets_needs
from blockcoupling.wording import aligned


def plan_of(study: Study) -> dict[str, Any]:
    """Estimates for all jobs that belong to a model, as plain JSON.

    Prompts, catalog, statistics, figures and report are omitted: minutes and 3 GB each.

    Returns:
        `steps`, a list of: `step`, `model`, `jobs`; of its largest job `memory_gb`, `gpus`,
        `gpu_memory_gb`, `threads` and `hours`; of all its jobs `total_hours` (one after another)
        and `disk_gb`. And `totals`: `jobs`, `memory_gb`, `gpu_memory_gb` (of the largest job),
        `hours`, `core_hours`, `gpu_hours`, `disk_gb`, and `on_disk_gb`: what its results take now.
        GB are 2^30 bytes.
    """
    lines = []
    everything: list[Needs] = []
    for step, model, jobs in _lines(study):
        everything += jobs
        lines.append(_line(step, model, jobs))
    totals = {
        "jobs": len(everything),
        "memory_gb": _gb(max(job.mem_mb for job in everything)),
        "gpu_memory_gb": _gb(max(job.gpu_mb for job in everything)),
        "hours": _hours(sum(job.expected for job in everything)),
        "core_hours": _hours(sum(job.expected * job.threads for job in everything)),
        "gpu_hours": _hours(sum(job.expected * job.gpus for job in everything)),
        "disk_gb": _gb(sum(job.disk_mb for job in everything)),
        "on_disk_gb": _gb(bytes_of([study.results]) / 2**20),
    }
    return {"study": study.study, "steps": lines, "totals": totals}


def as_table(plan: dict[str, Any]) -> str:
    """The estimates as a table."""
    head = (
        *("step", "model", "jobs", "memory/GB", "GPUs", "GPU memory/GB", "cores"),
        *("hours each", "hours", "disk/GB"),
    )
    rows = [[_cell(value) for value in step.values()] for step in plan["steps"]]
    total = plan["totals"]
    gpu = (
        f"; {_cell(total['gpu_hours'])} on a GPU of at least {_cell(total['gpu_memory_gb'])} GB"
        if total["gpu_hours"]
        else ""
    )
    return "\n".join(
        [
            *aligned([head, *rows], left=2),
            "",
            f"{total['jobs']} jobs, {_cell(total['hours'])} hours one after another"
            f" ({_cell(total['core_hours'])} core hours{gpu});"
            f" {_cell(total['memory_gb'])} GB of memory for the largest, "
            f"{_cell(total['disk_gb'])} GB on disk when it has run,"
            f" {_cell(total['on_disk_gb'])} GB now.",
            "Prompts, catalog, statistics, figures and the report take minutes more.",
        ]
    )


def _lines(study: Study) -> Iterator[tuple[str, str, list[Needs]]]:
    """Step, model and jobs; jobs that share a process are one."""
    chunks = study.chunks()
    sharing = {model for models in chunks.values() for model in models}
    for chunk, models in chunks.items():
        about = f"{models[0]} to {models[-1]}" if len(models) > 1 else models[0]
        yield "together", about, [chunk_needs(study, chunk)]
    for step in steps():
        if step.needs is not None:
            for model, jobs in _by_model(study, step).items():
                if model not in sharing:
                    yield step.name, model, jobs


def _by_model(study: Study, step: Step) -> dict[str, list[Needs]]:
    """What each job of a step asks for, by model."""
    found: dict[str, list[Needs]] = {}
    if step.name == "extract" and study.together.datasets:
        for model in study.models:
            found[model] = [datasets_needs(study, model, each) for each in study.checkpoints(model)]
        return found
    for job in step.wildcards(study):
        found.setdefault(job["model"], []).append(needs_of(study, step.name, job))
    return found


def _line(step: str, model: str, jobs: list[Needs]) -> dict[str, Any]:
    return {
        "step": step,
        "model": model,
        "jobs": len(jobs),
        "memory_gb": _gb(max(job.mem_mb for job in jobs)),
        "gpus": max(job.gpus for job in jobs),
        "gpu_memory_gb": _gb(max(job.gpu_mb for job in jobs)),
        "threads": max(job.threads for job in jobs),
        "hours": _hours(max(job.expected for job in jobs)),
        "total_hours": _hours(sum(job.expected for job in jobs)),
        "disk_gb": _gb(sum(job.disk_mb for job in jobs)),
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
