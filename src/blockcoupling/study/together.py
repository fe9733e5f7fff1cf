"""What the jobs of a study ask for, step by step, and those that share a process."""

from collections.abc import Iterable, Iterator
from math import ceil

from blockcoupling.config.models import TrainedModel
from blockcoupling.config.study import Study
from blockcoupling.study import needs
from blockcoupling.study.needs import SAFETY, Needs

STEPS = ("train", "model", "extract", "reduce", "tokenwise", "damage", "score", "weight_spectra")


def of_step(study: Study, step: str, model: str) -> Iterator[Needs]:
    """What each job of a step of a model asks for, by itself."""
    if step == "train":
        if isinstance(study.models[model], TrainedModel):
            yield needs.train_needs(study, model)
        return
    if step == "tokenwise":
        for name, _, _ in study.token_jobs():
            if name == model:
                yield needs.tokenwise_needs(study, model)
        return
    if step == "damage":
        for name, checkpoint, dataset in study.damage_jobs():
            if name == model:
                yield needs.damage_needs(study, model, dataset, checkpoint)
        return
    for checkpoint in study.checkpoints(model):
        match step:
            case "model":
                yield needs.record_needs(study, model, checkpoint)
            case "score":
                yield needs.score_needs(study, model)
            case "weight_spectra" if study.weight_spectra:
                yield needs.weight_spectra_needs(study, model, checkpoint)
            case "extract":
                for dataset in study.datasets_of(model):
                    yield needs.extract_needs(study, model, dataset, checkpoint)
            case "reduce":
                for dataset in study.datasets_of(model):
                    yield needs.reduce_needs(study, model, dataset)


def together(jobs: Iterable[Needs]) -> Needs:
    """What jobs ask for that run in one process, one after another."""
    several = list(jobs)
    expected = sum(job.expected for job in several)
    return Needs(
        mem_mb=max(job.mem_mb for job in several),
        minutes=max(10, ceil(SAFETY * expected)),
        expected=expected,
        threads=max(job.threads for job in several),
        gpus=max(job.gpus for job in several),
        gpu_mb=max(job.gpu_mb for job in several),
        disk_mb=sum(job.disk_mb for job in several),
    )


def chunk_needs(study: Study, chunk: str) -> Needs:
    """All small jobs of models that share a process."""
    models = study.chunks()[chunk]
    return together(job for m in models for step in STEPS for job in of_step(study, step, m))


def datasets_needs(study: Study, model: str, checkpoint: str) -> Needs:
    """Extraction from all datasets in one process."""
    return together(
        needs.extract_needs(study, model, dataset, checkpoint)
        for dataset in study.datasets_of(model)
    )
