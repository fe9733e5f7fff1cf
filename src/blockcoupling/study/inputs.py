"""Files that jobs read: the entries of a catalog, and files that the workflow does not make.

Files that are not made here are known by their content: their times do not show that one was
replaced by an older one, or that a link now leads to another directory.
"""

from pathlib import Path
from typing import Any

from blockcoupling.config.datasets import BuiltinDataset, JsonlDataset
from blockcoupling.config.models import LocalModel, TrainedModel, Training
from blockcoupling.config.steps import entered_by
from blockcoupling.config.study import Study
from blockcoupling.digests import file_digest, json_digest
from blockcoupling.sources.corpus import corpus
from blockcoupling.sources.identity import content_identity


def entries_since(study: Study, catalog: str) -> list[str]:
    """The entry files of all steps between a catalog and the one before it."""
    return [
        str(study.results / pattern.format(**wildcards))
        for row in entered_by(catalog)
        for wildcards in row.wildcards(study)
        for pattern in row.entries.values()
    ]


def training_record(study: Study, model: str, checkpoint: str) -> list[str]:
    """The small file that differs wherever the weights of a checkpoint trained here do."""
    if not isinstance(study.models[model], TrainedModel):
        return []
    return [f"{study.model_spec(model, checkpoint)['path']}/training.json"]


def images_trained_on(study: Study, model: str) -> list[str]:
    """The files that a model is trained on, if they are on this machine."""
    section = study.models[model]
    assert isinstance(section, TrainedModel)
    return _image_files(section.train)


def images_measured_at(study: Study, dataset: str) -> list[str]:
    """The files of a dataset of images, if they are on this machine."""
    return _image_files(study.datasets[dataset])


def _image_files(section: Any) -> list[str]:
    path: Path | None = getattr(getattr(section, "images", None), "path", None)
    if path is None:
        return []
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return [str(each) for each in found if each.is_file()]


def content_of_model(study: Study, model: str, checkpoint: str) -> str | None:
    """Digest of a checkpoint in a directory of the user's."""
    if not isinstance(study.models[model], LocalModel):
        return None
    return json_digest(content_identity(study.model_spec(model, checkpoint)))


def content_of_training(study: Study, model: str) -> str | None:
    """Digest of the built-in text, if a model is trained on it."""
    section = study.models[model]
    of_text = isinstance(section, TrainedModel) and isinstance(section.train, Training)
    return corpus().digest if of_text else None


def content_of_prompts(study: Study, dataset: str) -> str | None:
    """Digest of a file of prompts, or of the built-in text."""
    section = study.datasets[dataset]
    if isinstance(section, BuiltinDataset) and section.name == "heldout":
        return corpus().digest
    return file_digest(section.path) if isinstance(section, JsonlDataset) else None


def content_of_scores(study: Study, model: str) -> dict[str, Any]:
    """Digests of the files of questions, by task, and of the built-in text where it is scored."""
    asked = study.score.harness.items()
    questions = {name: file_digest(task.path) for name, task in asked if task.path is not None}
    of_text = study.score.heldout and study.models[model].takes == "text"
    return {"questions": questions, "text": corpus().digest if of_text else None}


def content_of_damage(study: Study) -> str | None:
    """Digest of the built-in text, on which the damage to a model is measured."""
    return corpus().digest if study.damage else None
