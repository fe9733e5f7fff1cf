"""Where prompts come from: built in, a local JSONL file, or a dataset of the hub."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from blockcoupling.atomic import replacing
from blockcoupling.config.datasets import BuiltinDataset, Dataset, HubDataset, JsonlDataset
from blockcoupling.config.questions import TEMPLATES
from blockcoupling.config.section import parse
from blockcoupling.errors import UserError
from blockcoupling.store.part_names import name_problem
from blockcoupling.wording import lone_surrogate

HELDOUT_PROMPT_BYTES = 96
_SHOWN = 10


@dataclass(frozen=True)
class Prompt:
    """A text with a stable identity, and facts on where it came from (plain JSON values)."""

    id: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def load_prompts(spec: Mapping[str, Any]) -> list[Prompt]:
    """Make the prompts that a dataset's section of the configuration describes.

    Args:
        spec: `Study.dataset_spec(name)`: `source` (builtin, jsonl, hub) and that source's keys,
            `prompts` (how many to sample; None for all), `seed` (of the sample) and `max_bytes`
            (of a text; longer ones are left out before sampling).

    Returns:
        Prompts in the order of their source. An id is the row's own, or begins the SHA-256 of the
        text; one that occurs again gets `~2`, `~3`, ... over the whole source, so that neither the
        size nor the seed of a sample changes it.

    Raises:
        UserError: a file, line, field, prompt, dataset or revision is missing or broken.
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
    limit = "" if section.max_bytes is None else f" of at most {section.max_bytes} bytes"
    if section.max_bytes is not None:
        prompts = [p for p in prompts if len(p.text.encode()) <= section.max_bytes]
        facts |= {"max_bytes": section.max_bytes}
        if not prompts:
            raise UserError(f"{name} has no prompts{limit}; raise `max_bytes`")
    wanted = section.prompts
    if wanted is not None and wanted > len(prompts):
        raise UserError(
            f"{name} has {len(prompts)} prompts{limit}, {wanted} are asked for; lower `prompts`"
        )
    if wanted is not None and wanted < len(prompts):
        seed = section.seed or 0
        chosen = sorted(random.Random(seed).sample(range(len(prompts)), wanted))
        prompts = [prompts[n] for n in chosen]
        facts |= {"sampled": wanted, "seed": seed}
    return [Prompt(p.id, p.text, {**facts, **p.facts}) for p in prompts]


def write_prompts(prompts: Iterable[Prompt], path: Path | str) -> None:
    """Write prompts to a JSONL file, one `{"id", "text", ...facts}` a line; whole or not at all."""
    rows = ({"id": prompt.id, "text": prompt.text, **prompt.facts} for prompt in prompts)
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_prompts(path: Path | str) -> list[Prompt]:
    """Read what `write_prompts` wrote, or any JSONL file with a `text` (and an `id`) a line.

    Raises:
        UserError: naming the file and every line that is broken, or has no text or an empty one.
    """
    return _from_rows(*_read_rows(path), "text", str(path))


def read_questions(path: Path | str, template: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file in the local form of a template (see `questions`), with all fields.

    Raises:
        UserError: naming the file and every line that is broken or not of the form.
    """
    rows, broken = _read_rows(path)
    _from_rows(rows, broken, template, str(path))
    return [row for _, row in rows]


def check_length(
    tokenizer: Callable[[str], Mapping[str, Any]],
    prompts: Sequence[Prompt],
    context: int | None,
) -> None:
    """Refuse prompts that are longer, in tokens, than a model's context.

    Args:
        tokenizer: Any callable that returns a mapping with `input_ids`.
        prompts: The prompts to be measured.
        context: The most tokens that the model takes; None where it has no limit.

    Raises:
        UserError: naming every prompt that is too long, or has no token at all.
    """
    wrong = []
    for prompt in prompts:
        tokens = len(tokenizer(prompt.text)["input_ids"])
        if tokens == 0:
            wrong.append(f"prompt {prompt.id} has no tokens")
        elif context is not None and tokens > context:
            wrong.append(
                f"prompt {prompt.id} has {tokens} tokens, the model's context is {context}"
            )
    _raise_all(wrong)


# ----------------------------------------------------------------------------------------- sources


def _builtin(section: BuiltinDataset) -> tuple[list[Prompt], dict[str, Any]]:
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
    """The words of `text` that end within `size` bytes (the characters of it are ASCII)."""
    words = text.encode()[: size + 1].decode(errors="ignore").rsplit(maxsplit=1)
    return words[0] if len(words) == 2 else ""


def _jsonl(section: JsonlDataset) -> tuple[list[Prompt], dict[str, Any]]:
    prompts = _from_rows(*_read_rows(section.path), section.template, str(section.path))
    return prompts, {"source": section.path.name, "template": section.template}


def _hub(section: HubDataset) -> tuple[list[Prompt], dict[str, Any]]:
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
                f"{place} is not of the form that the template {template} reads "
                f"({type(error).__name__}: {error}); its columns are {', '.join(hub_row)}"
            ) from error
        # Rows without an id of their own are counted, by subject where they have one.
        subject = row.get("subject", "")
        row.setdefault("id", f"{subject}/{counts[subject]}" if subject else str(number))
        counts[subject] += 1
        rows.append((place, row))
    facts = {"source": section.id, "revision": commit, "split": split, "template": template}
    if section.config:
        facts["config"] = section.config
    return _from_rows(rows, [], template, section.id), facts


def _read_rows(path: Path | str) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """The objects of a JSONL file, each with its place, and what is wrong with other lines."""
    try:
        # Windows programs begin a file with a byte-order mark.
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8: {error}") from error
    rows, broken = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line, object_pairs_hook=_no_key_twice)
        except json.JSONDecodeError as error:
            broken.append(f"{place}: not JSON ({error.msg}, column {error.colno})")
        except (ValueError, RecursionError) as error:
            broken.append(f"{place}: not JSON that can be read ({error})")
        else:
            if not isinstance(row, dict):
                broken.append(f"{place}: not a JSON object, {{...}}")
            elif (half := lone_surrogate(text := json.dumps(row, ensure_ascii=False))) is not None:
                broken.append(
                    f"{place}: half of a surrogate pair (\\u{ord(text[half]):04x}), which is no "
                    "character: write both halves, or remove it"
                )
            else:
                rows.append((place, row))
    return rows, broken


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is given twice")
    return row


def _from_rows(
    rows: list[tuple[str, dict[str, Any]]], broken: list[str], template_name: str, source: str
) -> list[Prompt]:
    template = TEMPLATES[template_name]
    prompts, wrong = [], list(broken)
    distinct = _distinct()
    for place, row in rows:
        if missing := [name for name in template.fields if name not in row]:
            wrong.append(
                f"{place}: no {' and no '.join(missing)}, which the template {template_name} "
                f"reads; the line has {', '.join(row) or 'nothing'}"
            )
        elif misfit := [name for name in template.fields if not _fits(name, row[name])]:
            wrong.append(f"{place}: {' and '.join(misfit)} not as the templates' form has it")
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
            prompts.append(Prompt(distinct(identity), text, facts))
    _raise_all(wrong)
    if not prompts:
        raise UserError(f"{source} holds no prompts")
    return prompts


def _fits(name: str, value: Any) -> bool:
    if name == "choices":
        return isinstance(value, list) and all(isinstance(choice, str) for choice in value)
    return isinstance(value, int) if name == "answer" else isinstance(value, str)


def _distinct() -> Callable[[str], str]:
    seen: set[str] = set()
    counts: Counter[str] = Counter()

    def distinct(identity: str) -> str:
        name = identity
        counts[identity] += 1
        while name in seen:
            name = f"{identity}~{counts[identity]}"
            counts[identity] += name in seen
        seen.add(name)
        return name

    return distinct


def _raise_all(problems: list[str]) -> None:
    if problems:
        shown = problems[:_SHOWN]
        if len(problems) > _SHOWN:
            shown.append(f"... and {len(problems) - _SHOWN} more")
        raise UserError("\n".join(shown))
