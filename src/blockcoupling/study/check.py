"""Reading a study's configuration, and listing everything that is wrong with it at once.

Light on purpose (no torch, no transformers): every job of a workflow reads the configuration.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from blockcoupling.catalog.owner import taken
from blockcoupling.config.datasets import Dataset, HubDataset, ImageDataset
from blockcoupling.config.images import HubImages
from blockcoupling.config.measurement import Extract
from blockcoupling.config.models import LocalModel, Model, TrainedModel, Training
from blockcoupling.config.populations import with_populations
from blockcoupling.config.score import HarnessTask
from blockcoupling.config.section import mistakes, sentence
from blockcoupling.config.study import Study
from blockcoupling.config.tokens import tokens_refused
from blockcoupling.config.yaml_file import as_written, read_yaml
from blockcoupling.errors import UserError
from blockcoupling.sources.image_prompts import load_image_prompts
from blockcoupling.sources.local import (
    checkpoint_facts,
    checkpoint_problems,
    processor_problem,
    tokenizer_problem,
)
from blockcoupling.sources.prompts import Prompt, load_prompts
from blockcoupling.sources.suite import with_suite
from blockcoupling.study.results_owner import occupied

__all__ = ["Study", "load_config"]


def load_config(
    source: str | Path | Mapping[str, Any], written_in: Iterable[Path | str] = ()
) -> Study:
    """Read and check a configuration: a YAML file, or the mapping that one holds.

    Args:
        source: The file, or the mapping.
        written_in: The files that a mapping was read from, which show how a revision such as
            `0001000` is written.

    Everything that can be known without a network is checked: keys and values, values that do not
    fit together, directories and files that are missing, broken lines and empty prompts in prompt
    files, K_max larger than a model's dimension, models with fewer than two blocks.

    Raises:
        UserError: listing every mistake found, one a line.
    """
    if isinstance(source, Mapping):
        origin, data = "the configuration", dict(source)
        for file in written_in:
            data = as_written(data, read_yaml(Path(file), "configuration"))
    else:
        origin, data = str(source), read_yaml(Path(source), "configuration")
    if refused := tokens_refused(data):  # first of all: other messages quote values
        raise UserError(mistakes(origin, refused))
    study = None
    data, problems = with_suite(data)
    data, more = with_populations(data)
    problems += more
    try:
        study = Study.model_validate(data)
        problems += study.inconsistencies()
        if why := taken(study.catalog, study.study, study.results):
            problems.append(f"catalog: {why}")
        elif why := occupied(study):
            problems.append(f"results: {why}")
    except ValidationError as error:
        emptied = problems and not data.get("models")  # by mistakes that are listed already
        lines = [each for each in error.errors() if not (emptied and each["loc"] == ("models",))]
        problems += [sentence(line) for line in lines]
    problems += _problems_outside(data)
    if study is None or problems:
        raise UserError(mistakes(origin, problems))
    return study


# ------------------------------------------------------------------ what the file system shows


def _problems_outside(data: Mapping[str, Any]) -> list[str]:
    """Mistakes that files show, of each section without a mistake in itself."""
    found = []
    extract = _parsed(Extract, data.get("extract", {}))
    models = _entries(data, "models", Model)
    for name, section in models:
        found += _model_problems(f"models.{name}", section, extract)
    for name, section in _entries(data, "datasets", Dataset):
        if isinstance(section, ImageDataset):
            if not isinstance(section.images, HubImages):
                found += [f"datasets.{name}: {problem}" for problem in _images_problems(section)]
        elif not isinstance(section, HubDataset):
            prompts, problems = _loaded(section.model_dump(mode="json"))
            found += [f"datasets.{name}: {problem}" for problem in problems]
            found += _too_long(f"datasets.{name}", prompts, models)
    if "rates" in data and not Path(str(data["rates"])).expanduser().is_file():
        found.append(f"rates: no file {data['rates']}; blockcoupling calibrate writes one")
    score = data.get("score", {})
    for name, task in _entries(score if isinstance(score, Mapping) else {}, "harness", HarnessTask):
        if task.path is not None:
            spec = {"source": "jsonl", "path": str(task.path), "template": task.template}
            found += [f"score.harness.{name}: {problem}" for problem in _loaded(spec)[1]]
    return found


def _parsed(kind: Any, value: Any) -> Any:
    """The section, or None if pydantic has rejected it already."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None


def _entries(data: Mapping[str, Any], key: str, kind: Any) -> list[tuple[str, Any]]:
    sections = data.get(key, {})
    if not isinstance(sections, Mapping):
        return []
    parsed = ((name, _parsed(kind, section)) for name, section in sections.items())
    return [(name, section) for name, section in parsed if section is not None]


def _model_problems(where: str, section: Any, extract: Extract | None) -> list[str]:
    found: list[str] = []
    dimensions: set[int] = set()
    if isinstance(section, TrainedModel):
        dimensions.add(section.train.hidden_size)
    elif isinstance(section, LocalModel):
        for directory in section.trained_checkpoints().values():
            problems = checkpoint_problems(directory, allow_pickle=section.allow_pickle)
            found += [f"{where}: {problem}" for problem in problems]
            if not problems:
                facts = checkpoint_facts(directory)
                dimensions |= {d for d in [facts["dimension"]] if d is not None}
            place = section.tokenizer or directory
            wrong = tokenizer_problem if section.takes == "text" else processor_problem
            if not problems and (problem := wrong(place)):
                found.append(f"{where}: {problem}")
    for d in sorted(dimensions):
        if extract is not None and extract.k_for(d) > d:
            found.append(
                f"extract.k: {extract.k} is larger than the dimension {d} of {where}; lower it to "
                f"{d}, or set extract.k_when_smaller: d"
            )
    return found


def _images_problems(section: ImageDataset) -> list[str]:
    try:
        load_image_prompts(section.model_dump(mode="json"))
    except UserError as error:
        return str(error).splitlines()
    return []


def _loaded(spec: dict[str, Any]) -> tuple[list[Prompt], list[str]]:
    try:
        return load_prompts(spec), []
    except UserError as error:
        return [], str(error).splitlines()


def _too_long(where: str, prompts: list[Prompt], models: list[tuple[str, Any]]) -> list[str]:
    """Prompts longer than the context of models trained here, whose tokens are bytes."""
    sizes = {prompt.id: len(prompt.text.encode()) for prompt in prompts}
    found = []
    for name, model in models:
        if isinstance(model, TrainedModel) and isinstance(model.train, Training):
            long = [f"{i} ({n})" for i, n in sizes.items() if n > model.train.context]
            if long:
                more = f" and {len(long) - 3} more" if len(long) > 3 else ""
                found.append(
                    f"{where}: prompts have more bytes than models.{name}.train.context = "
                    f"{model.train.context}: {', '.join(long[:3])}{more}"
                )
    return found
