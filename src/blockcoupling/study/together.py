"""Jobs that share a process: all jobs of some models, or one checkpoint on all of its datasets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil

from blockcoupling.config.steps import Step, steps
from blockcoupling.config.study import Study
from blockcoupling.study.needs import SAFETY, Needs, needs_of, nothing

EXTRACT_TOGETHER, CHUNK = "extract_together_", "together_"
"""How the names of the rules begin whose jobs do what those of several rules would."""


def jobs_of(study: Study, models: Sequence[str]) -> Iterator[tuple[Step, dict[str, str]]]:
    """The jobs of some models, model by model, in an order in which each finds what it needs.

    Yields:
        The step and its wildcards: first what makes the model, then checkpoint by checkpoint, so
        that one process loads each of them once.
    """
    of_models = [each for each in steps() if "model" in each.per]
    recorded = [each.name for each in of_models].index("weights")
    for model in models:
        only = study.model_copy(update={"models": {model: study.models[model]}})
        jobs = [(each, each.wildcards(only)) for each in of_models]
        yield from ((each, wildcards) for each, found in jobs[:recorded] for wildcards in found)
        for checkpoint in study.checkpoints(model):
            for each, found in jobs[recorded:]:
                yield from ((each, job) for job in found if job["checkpoint"] == checkpoint)


def together(jobs: Iterable[Needs]) -> Needs:
    """What jobs ask for that run in one process, one after another."""
    several = list(jobs)
    starting = max(job.starting for job in several)
    expected = starting + sum(job.expected - job.starting for job in several)
    return Needs(
        mem_mb=max(job.mem_mb for job in several),
        minutes=max(10, ceil(SAFETY * expected)),
        expected=expected,
        starting=starting,
        threads=max(job.threads for job in several),
        gpus=max(job.gpus for job in several),
        gpu_mb=max(job.gpu_mb for job in several),
        disk_mb=sum(job.disk_mb for job in several),
    )


def chunk_needs(study: Study, chunk: str) -> Needs:
    """All small jobs of models that share a process."""
    jobs = jobs_of(study, study.chunks()[chunk])
    return together(needs_of(study, step.name, wildcards) for step, wildcards in jobs)


def datasets_needs(study: Study, model: str, checkpoint: str) -> Needs:
    """Extraction from all datasets in one process."""
    of = {"model": model, "checkpoint": checkpoint}
    return together(
        needs_of(study, "extract", {**of, "dataset": dataset})
        for dataset in study.datasets_of(model)
    )


def rule_needs(study: Study, rule: str, wildcards: Mapping[str, str]) -> Needs:
    """What a job of any rule of the workflow asks for; next to nothing if it is not a step."""
    if rule in [each.name for each in steps()]:
        return needs_of(study, rule, wildcards)
    if rule.startswith(EXTRACT_TOGETHER):
        return datasets_needs(study, wildcards["model"], wildcards["checkpoint"])
    if (chunk := rule.removeprefix(CHUNK)) in study.chunks():
        return chunk_needs(study, chunk)
    return nothing(study)
