"""Scores of others: result files of evaluations that somebody else has run.

Three formats are read. Every Eval Ever (its aggregate JSON, schema 0.2), `results_*.json` of
lm-evaluation-harness, and `.eval_results/*.yaml` of model repositories. A filter of the harness
(`strict-match`, `flexible-extract`) makes a metric of its own, `exact_match,strict-match`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from blockcoupling.errors import UserError

FOLDER = ".eval_results"
"""Directory of a model repository that holds its results."""

_KNOWN_SCHEMA = re.compile(r"0\.2(\.|$)")
_FILTERED = re.compile(r"^([\w.@-]+) \(filter: ([\w.-]+)\)$")
# Where the harness's file does not say.
_LOWER_IS_BETTER = ("perplexity", "bits_per_byte", "loss", "brier_score", "ter")
_FILTER = ",@"  # of names of metrics: exact_match,strict-match; pass@1
_NO_METRICS = ("alias", "name", "samples", "sample_len", "sample_count")


@dataclass(frozen=True)
class Result:
    """One published score.

    Attributes:
        model: As the file names the model: a hub id, a name, a directory; "": the repository's.
        revision: Of the model, "" where the file says none.
        score, metric: Names that a study can use.
        value: The score, in the metric's unit.
        standard_error: In the same unit; None where it is unknown.
        n: Questions; 0 where that is unknown.
        higher_is_better: Whether a larger score is a better one.
        date: Of the evaluation, or else of its retrieval: YYYY-MM-DD, "" if unknown.
        source: Who has evaluated with what, and the file's name.
        file: Where it was read.
    """

    model: str
    revision: str
    score: str
    metric: str
    value: float
    standard_error: float | None
    n: int
    higher_is_better: bool
    date: str
    source: str
    file: Path

    def row(self) -> dict[str, Any]:
        """What a table of scores keeps of it, as plain JSON."""
        kept = ("score", "metric", "value", "standard_error", "n", "higher_is_better")
        return {name: getattr(self, name) for name in (*kept, "date", "source")}


def read_results(places: Iterable[Path]) -> list[Result]:
    """The results in files, or in all files below directories.

    Args:
        places: JSON files of Every Eval Ever or of the harness, YAML files of repositories, or
            directories. Files in directories that are none of these are passed over.

    Raises:
        UserError: A place does not exist or has no results, or a file cannot be read; it is named
            with what is wrong in it.
    """
    found = []
    for place in places:
        if not place.exists():
            raise UserError(f"score.published: there is no file or directory {place}")
        if place.is_dir():
            files = sorted(f for f in place.rglob("*") if f.suffix in (".json", ".yaml", ".yml"))
            own = [result for file in files for result in _read(file) or []]
            if not own:
                raise UserError(f"score.published: no results below {place}: {_EXPECTED}")
        else:
            read = _read(place)
            if read is None:
                raise UserError(f"score.published: {place} holds no results: {_EXPECTED}")
            own = read
        found += own
    return found


_EXPECTED = (
    "expected Every Eval Ever's JSON, results_*.json of lm-evaluation-harness, or "
    f"{FOLDER}/*.yaml of a model repository"
)


def of_repository(directory: Path) -> list[Result]:
    """The results that a model repository holds about its model."""
    files = sorted((directory / FOLDER).glob("*.y*ml"))
    return [result for file in files for result in _read(file) or []]


def newest(results: Iterable[Result]) -> list[Result]:
    """One result for each score and metric: of several, the one with the latest date.

    Raises:
        UserError: Two of them differ, and their dates do not say which is newer.
    """
    chosen: dict[tuple[str, str], Result] = {}
    for result in results:
        key = result.score, result.metric
        other = chosen.setdefault(key, result)
        if other.date == result.date and other.value != result.value:
            raise UserError(
                f"score.published: {other.file} has {other.value:g} and {result.file} has "
                f"{result.value:g} for {result.score}, {result.metric} of {result.model}, and no "
                "date says which is newer: remove one of them"
            )
        if result.date > other.date:
            chosen[key] = result
    return list(chosen.values())


def _read(file: Path) -> list[Result] | None:
    """The results of a file; None where it is of another kind."""
    in_yaml = file.suffix in (".yaml", ".yml")
    if in_yaml and file.parent.name != FOLDER:
        return None
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if in_yaml else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"score.published: {file} cannot be read: {said}") from error
    kind: Callable[[Any, _Keys, Path], list[Result]]
    if in_yaml:
        kind = _of_repository
    elif isinstance(content, dict) and "evaluation_results" in content:
        kind = _every_eval_ever
    elif isinstance(content, dict) and "results" in content and "config" in content:
        kind = _harness
    else:
        return None
    return kind(content, _Keys(file), file)


class _Keys:
    """Reads values out of a file, and names file and key where one is missing or wrong."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def wrong(self, key: str, why: str) -> UserError:
        return UserError(f"score.published: {self._file}, {key}: {why}")

    def of(self, mapping: Any, key: str, where: str, kind: type | tuple[type, ...]) -> Any:
        """A value that must be there."""
        if not isinstance(mapping, Mapping) or key not in mapping:
            raise self.wrong(f"{where}{key}", "is missing")
        value = mapping[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(f"{where}{key}", f"has another type than expected ({value!r:.40})")
        return value

    def number(self, mapping: Any, key: str, where: str) -> float:
        """A finite number that must be there."""
        value = float(self.of(mapping, key, where, (int, float)))
        if not math.isfinite(value):
            raise self.wrong(f"{where}{key}", f"is {value}, not a number")
        return value


def _every_eval_ever(content: Any, keys: _Keys, file: Path) -> list[Result]:
    version = keys.of(content, "schema_version", "", str)
    if not _KNOWN_SCHEMA.match(version):
        raise keys.wrong("schema_version", f"is {version}; versions 0.2 are understood")
    info = keys.of(content, "model_info", "", dict)
    model = str(info.get("id") or keys.of(info, "name", "model_info.", str))
    revision = str((info.get("additional_details") or {}).get("revision") or "")
    about = keys.of(content, "source_metadata", "", dict)
    library = content.get("eval_library") or {}
    who = about.get("source_name") or about.get("source_organization_name") or "unknown source"
    source = f"{who} ({str(about.get('evaluator_relationship', 'other')).replace('_', ' ')})"
    if library.get("name"):
        source += f", {library['name']} {library.get('version') or ''}".rstrip()
    found = []
    for n, each in enumerate(keys.of(content, "evaluation_results", "", list)):
        where = f"evaluation_results[{n}]."
        name = keys.of(each, "evaluation_name", where, str)
        config = keys.of(each, "metric_config", where, dict)
        details = keys.of(each, "score_details", where, dict)
        value = keys.number(details, "score", f"{where}score_details.")
        if config.get("has_unknown_level") and value == -1:
            continue  # the schema's way to say that there is none
        lower = keys.of(config, "lower_is_better", f"{where}metric_config.", bool)
        described = str(config.get("evaluation_description") or "")
        if filtered := _FILTERED.match(described):
            metric = ",".join(filtered.groups())
            name = name.removesuffix(f"/{filtered[2]}")
        else:
            short = described if len(described) <= 40 else ""
            metric = config.get("metric_id") or config.get("metric_name") or short or "score"
        uncertainty = details.get("uncertainty") or {}
        error = (uncertainty.get("standard_error") or {}).get("value")
        dates = (
            each.get("evaluation_timestamp"),
            content.get("evaluation_timestamp"),
            content.get("retrieved_timestamp"),
        )
        found.append(
            Result(
                model=model,
                revision=revision,
                score=_name(name),
                metric=_name(str(metric), _FILTER),
                value=value,
                standard_error=None if error is None else float(error),
                n=int(uncertainty.get("num_samples") or 0),
                higher_is_better=not lower,
                date=next((_date(each) for each in dates if each), ""),
                source=f"{source}, {file.name}",
                file=file,
            )
        )
    return found


def _harness(content: Any, keys: _Keys, file: Path) -> list[Result]:
    config = keys.of(content, "config", "", dict)
    arguments = _arguments(config.get("model_args"))
    model = str(content.get("model_name") or arguments.get("pretrained") or "")
    if not model:
        raise keys.wrong("model_name", "is missing")
    version = content.get("lm_eval_version") or ""
    shots, samples = content.get("n-shot") or {}, content.get("n-samples") or {}
    versions, better = content.get("versions") or {}, content.get("higher_is_better") or {}
    found = []
    for task, metrics in keys.of(content, "results", "", dict).items():
        where = f"results.{task}."
        for key in metrics:
            metric, _, kind = key.partition(",")
            numeric = isinstance(metrics[key], int | float) and not isinstance(metrics[key], bool)
            if metric in _NO_METRICS or metric.endswith("_stderr") or not numeric:
                continue
            error = metrics.get(f"{metric}_stderr,{kind}")
            is_better = (better.get(task) or {}).get(metric)
            if is_better is None:
                is_better = not metric.endswith(_LOWER_IS_BETTER)
            about = [f"lm_eval {version}".strip(), f"task version {versions.get(task)}"]
            about += [f"{shots[task]}-shot"] if task in shots else []
            found.append(
                Result(
                    model=model,
                    revision=str(config.get("model_revision") or arguments.get("revision") or ""),
                    score=_name(task),
                    metric=_name(metric if kind in ("", "none") else key, _FILTER),
                    value=keys.number(metrics, key, where),
                    standard_error=error if isinstance(error, float) else None,
                    n=int((samples.get(task) or {}).get("effective") or 0),
                    higher_is_better=bool(is_better),
                    date=_date(content["date"]) if content.get("date") else "",
                    source=", ".join([*about, file.name]),
                    file=file,
                )
            )
    return found


def _of_repository(content: Any, keys: _Keys, file: Path) -> list[Result]:
    found = []
    if not isinstance(content, list):
        raise keys.wrong("the file", "is not a list of results")
    for n, each in enumerate(content):
        where = f"[{n}]."
        dataset = keys.of(each, "dataset", where, dict)
        task = str(dataset.get("task_id") or keys.of(dataset, "id", f"{where}dataset.", str))
        source = each.get("source") or {}
        notes = f" ({each['notes']})" if each.get("notes") else ""
        place = source.get("url") or source.get("name") or "the model's repository"
        found.append(
            Result(
                model="",
                revision="",
                score=_name(task),
                metric=_name(f"score,{each['notes']}" if each.get("notes") else "score", _FILTER),
                value=keys.number(each, "value", where),
                standard_error=None,
                n=0,
                higher_is_better=True,
                date=_date(each["date"]) if each.get("date") else "",
                source=f"{place}{notes}, {dataset.get('id', '')}, {FOLDER}/{file.name}",
                file=file,
            )
        )
    return found


def _arguments(given: Any) -> dict[str, Any]:
    """The harness's model arguments: a mapping, or `name=value,name=value`."""
    if isinstance(given, Mapping):
        return dict(given)
    pairs = (each.partition("=") for each in str(given or "").split(","))
    return {name.strip(): value for name, equals, value in pairs if equals}


def _name(text: str, also: str = "") -> str:
    """A name that a study can use: characters other than the usual ones become hyphens."""
    return re.sub(rf"[^A-Za-z0-9._{also}]+", "-", text).strip("-.,@_")[:100] or "score"


def _date(given: Any) -> str:
    """YYYY-MM-DD of seconds since 1970, or of a date in ISO 8601; anything else as it is."""
    try:
        return datetime.fromtimestamp(float(given), UTC).date().isoformat()
    except (TypeError, ValueError):
        pass
    try:
        return datetime.fromisoformat(str(given)).date().isoformat()
    except ValueError:
        return str(given)
