"""Files that jobs read: the entries of a catalog, and files that the workflow does not make.

Files that are not made here are known by their content: their times do not show that one was
replaced by an older one, or that a link now leads to another directory.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blockcoupling.catalog.entries import MADE
from blockcoupling.catalog.plain import parse, read_text
from blockcoupling.config.datasets import BuiltinDataset, JsonlDataset
from blockcoupling.config.models import LocalModel, TrainedModel, Training
from blockcoupling.config.steps import entered_by, step
from blockcoupling.config.study import Study
from blockcoupling.digests import file_digest, json_digest
from blockcoupling.sources.corpus import corpus
from blockcoupling.sources.identity import content_identity
from blockcoupling.sources.images import images_digest


def entries_since(study: Study, catalog: str) -> list[str]:
    """The entry files of all steps between a catalog and the one before it."""
    return [
        str(study.results / pattern.format(**wildcards))
        for row in entered_by(catalog)
        for wildcards in row.wildcards(study)
        for pattern in row.entries.values()
    ]


def changed_prompts(
    study: Study, settled: Callable[[Mapping[str, str]], list[str]]
) -> Iterator[Path]:
    """Yield each file of prompts that jobs must not read.

    It is not what was entered (damaged, or edited in the results), or it was made from a file that
    had another content then: the user's file was edited while a run went on, and put back.

    Args:
        study: The study.
        settled: The file of what decides a job's prompts. Where it is newer than the prompts, they
            are made again as it is.
    """
    row = step("prompts")
    for wildcards in row.wildcards(study):
        file, entry = (
            study.results / pattern["prompts"].format(**wildcards)
            for pattern in (row.artifacts, row.entries)
        )
        decided = Path(settled(wildcards)[0]).stat().st_mtime_ns
        if entry.is_file() and file.is_file() and file.stat().st_mtime_ns > decided:
            about = parse(read_text(entry, "the entry file"), f"{entry} is not an entry file")
            metadata = about.get("metadata", {})
            digests = {file: metadata.get("digest")}
            section = study.datasets[wildcards["dataset"]]
            if isinstance(section, JsonlDataset):
                texts = metadata.get(MADE, {}).get("inputs", {}).get("texts", {})
                digests[section.path] = texts.get("digest")
            if any(d is not None and d != file_digest(each) for each, d in digests.items()):
                yield file


def training_record(study: Study, model: str, checkpoint: str) -> list[str]:
    """The small file that differs wherever the weights of a checkpoint trained here do."""
    if not isinstance(study.models[model], TrainedModel):
        return []
    return [f"{study.model_spec(model, checkpoint)['path']}/training.json"]


def _content_of_images(section: Any) -> str | None:
    return images_digest(getattr(section, "images", None))


def content_of_model(study: Study, model: str, checkpoint: str) -> str | None:
    """Digest of a checkpoint in a directory of the user's."""
    if not isinstance(study.models[model], LocalModel):
        return None
    return json_digest(content_identity(study.model_spec(model, checkpoint)))


def content_of_training(study: Study, model: str) -> str | None:
    """Digest of the built-in text, or of images on this machine, if a model is trained on them."""
    section = study.models[model]
    if not isinstance(section, TrainedModel):
        return None
    if isinstance(section.train, Training):
        return corpus().digest
    return _content_of_images(section.train)


def content_of_prompts(study: Study, dataset: str) -> str | None:
    """Digest of a file of prompts, of the built-in text, or of images on this machine."""
    section = study.datasets[dataset]
    if isinstance(section, BuiltinDataset) and section.name == "heldout":
        return corpus().digest
    if isinstance(section, JsonlDataset):
        return file_digest(section.path)
    return _content_of_images(section)


def content_of_scores(study: Study, model: str) -> dict[str, Any]:
    """Digests of the files of questions, by task, and of the text or images that are scored."""
    asked = study.score.harness.items()
    questions = {name: file_digest(task.path) for name, task in asked if task.path is not None}
    of_text = study.score.heldout and study.models[model].takes == "text"
    images = _content_of_images(getattr(study.models[model], "train", None))
    return {
        "questions": questions,
        "text": corpus().digest if of_text else None,
        **({"images": images} if study.score.test and images else {}),
    }


def content_of_damage(study: Study) -> str | None:
    """Digest of the built-in text, on which the damage to a model is measured."""
    return corpus().digest if study.damage else None
