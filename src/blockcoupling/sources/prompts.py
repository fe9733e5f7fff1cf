"""Text prompts: built in, from a local JSONL file, or from a dataset on the hub."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from blockcoupling.config.datasets import BuiltinDataset, Dataset, HubDataset, JsonlDataset
from blockcoupling.config.questions import TEMPLATES
from blockcoupling.config.section import parse
from blockcoupling.errors import UserError
from blockcoupling.sources.jsonl import Row, read_rows, refuse, write_rows
from blockcoupling.sources.sampling import sampled, unique_names
from blockcoupling.store.part_names import name_problem

HELDOUT_PROMPT_BYTES = 96


@dataclass(frozen=True)
class Prompt:
    """A text with a stable identity, and facts on where it came from (plain JSON values)."""

    id: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def load_prompts(spec: Mapping[str, Any]) -> list[Prompt]:
    """Collect the prompts that a dataset's section of the configuration describes.

    Args:
        spec: `Study.dataset_spec(name)`: `source` (builtin, jsonl, hub) and that source's keys,
            `prompts` (how many to sample; None: all), `seed` (of the sample) and `max_bytes` (of a
            text; longer ones are excluded before sampling).

    Returns:
        Prompts in the order of their source. An id is the row's own, or the first digits of the
        text's SHA-256. Repeated ids get `~2`, `~3`, ... over the whole source, so that neither the
        size nor the seed of a sample changes them.

    Raises:
        UserError: A file, line, field, prompt, dataset or revision is missing or broken.
    """
    about = {key: value for key, value in spec.items() if key != "dataset"}
    section = parse(Dataset, about, "the description of the prompts")
    match section:
        case BuiltinDataset():
            prompts, facts = _builtin(section)
            name: str = section.name
        case JsonlDataset():
            prompts, facts = _jsonl(section)
            name = str(section.path)
        case HubDataset():
            prompts, facts = _hub(section)
            name = section.id
    unit = "prompts"
    if section.max_bytes is not None:
        unit += f" of at most {section.max_bytes} bytes"
        prompts = [p for p in prompts if len(p.text.encode()) <= section.max_bytes]
        facts |= {"max_bytes": section.max_bytes}
        if not prompts:
            raise UserError(f"{name} has no {unit}; raise `max_bytes`")
    prompts, sample = sampled(prompts, section.prompts, section.seed, name, unit)
    return [Prompt(p.id, p.text, {**facts, **sample, **p.facts}) for p in prompts]


def write_prompts(prompts: Iterable[Prompt], path: Path | str) -> None:
    """Write prompts to a JSONL file, one `{"id", "text", ...facts}` per line."""
    write_rows(path, ({"id": prompt.id, "text": prompt.text, **prompt.facts} for prompt in prompts))


def read_prompts(path: Path | str) -> list[Prompt]:
    """Read what `write_prompts` wrote, or any JSONL file with a `text` (and an `id`) per line.

    Raises:
        UserError: Lists the lines that are broken, or whose text is missing or empty.
    """
    return _from_rows(*read_rows(path), "text", str(path))


def read_questions(path: Path | str, template: str) -> list[Row]:
    """Read the rows of a JSONL file in the local form of a template (see `config.questions`).

    Raises:
        UserError: Lists the lines that are broken or not of that form.
    """
    rows, broken = read_rows(path)
    _from_rows(rows, broken, template, str(path))
    return [row for _, row in rows]


# ----------------------------------------------------------------------------------------- sources


def _builtin(section: BuiltinDataset) -> tuple[list[Prompt], Row]:
    if section.name == "handwritten":
        file = resources.files("blockcoupling.sources") / "data" / "handwritten.jsonl"
        with resources.as_file(file) as path:
            return read_prompts(path), {"source": "builtin: handwritten"}
    from blockcoupling.sources.corpus import corpus

    texts = corpus()
    prompts = [
        Prompt(f"{passage.topic}-{passage.number}", text)
        for passage in texts.heldout
        if (text := _beginning(passage.text, HELDOUT_PROMPT_BYTES))
    ]
    return prompts, {"source": f"builtin: heldout, {texts.source}"}


def _beginning(text: str, size: int) -> str:
    """The words of an ASCII text that end within `size` bytes."""
    words = text.encode()[: size + 1].decode(errors="ignore").rsplit(maxsplit=1)
    return words[0] if len(words) == 2 else ""


def _jsonl(section: JsonlDataset) -> tuple[list[Prompt], Row]:
    prompts = _from_rows(*read_rows(section.path), section.template, str(section.path))
    return prompts, {"source": section.path.name, "template": section.template}


def _hub(section: HubDataset) -> tuple[list[Prompt], Row]:
    from blockcoupling.sources.hub import dataset_rows

    template, split = section.template, section.split
    convert = TEMPLATES[template].from_hub
    hub_rows, commit = dataset_rows(section.id, section.config, split, section.revision)
    rows = []
    counts: Counter[str] = Counter()
    for number, hub_row in enumerate(hub_rows):
        place = f"{section.id} ({split}), row {number}"
        try:
            row = convert(hub_row)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(
                f"{place} does not have the form that the template {template} reads "
                f"({type(error).__name__}: {error}); its columns are {', '.join(hub_row)}"
            ) from error
        # Rows without an id are numbered, within their subject if they have one.
        subject = row.get("subject", "")
        row.setdefault("id", f"{subject}/{counts[subject]}" if subject else str(number))
        counts[subject] += 1
        rows.append((place, row))
    facts = {"source": section.id, "revision": commit, "split": split, "template": template}
    if section.config:
        facts["config"] = section.config
    return _from_rows(rows, [], template, section.id), facts


def _from_rows(
    rows: list[tuple[str, Row]], broken: list[str], template_name: str, source: str
) -> list[Prompt]:
    template = TEMPLATES[template_name]
    prompts, wrong = [], list(broken)
    unique = unique_names()
    for place, row in rows:
        if missing := [name for name in template.fields if name not in row]:
            wrong.append(
                f"{place}: no {' and no '.join(missing)}, which the template {template_name} "
                f"reads; the line has {', '.join(row) or 'nothing'}"
            )
        elif misfit := [name for name in template.fields if not _fits(name, row[name])]:
            wrong.append(f"{place}: {' and '.join(misfit)} not in the form of the templates")
        elif not (text := template.prompt(row)).strip():
            wrong.append(f"{place}: empty prompt")
        else:
            own = row.get("id")
            identity = hashlib.sha256(text.encode()).hexdigest()[:12] if own is None else str(own)
            if (problem := name_problem(identity)) is not None:
                wrong.append(f"{place}: {problem}")
                continue
            kept = row if template_name == "text" else {}
            facts = {key: value for key, value in kept.items() if key not in ("id", "text")}
            if template.continuations is not None:
                facts |= {"continuations": template.continuations(row), "answer": row["answer"]}
            prompts.append(Prompt(unique(identity), text, facts))
    refuse(wrong)
    if not prompts:
        raise UserError(f"{source} holds no prompts")
    return prompts


def _fits(name: str, value: Any) -> bool:
    if name == "choices":
        return isinstance(value, list) and all(isinstance(choice, str) for choice in value)
    return isinstance(value, int) if name == "answer" else isinstance(value, str)
