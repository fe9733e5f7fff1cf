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
from typing import Any, Literal

import yaml

from blockcoupling.errors import UserError

FOLDER = ".eval_results"
"""Directory of a model repository that holds its results."""

OF_OTHERS = ("few_shot", "lowest", "highest", "date", "retrieved")
"""Columns of a table of scores that only scores of others fill."""

_KNOWN_SCHEMA = re.compile(r"0\.2(\.|$)")
_YEAR = re.compile(r"\d{4}-\d\d")
_FILTERED = re.compile(r"^([\w.@-]+) \(filter: ([\w.-]+)\)$")
# Where the harness's file does not say.
_LOWER_IS_BETTER = ("perplexity", "bits_per_byte", "loss", "brier_score", "ter")
_FILTER = ",@"  # of names of metrics: exact_match,strict-match; pass@1
Several = Literal["refuse", "newest"]
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
        date, retrieved: Of the evaluation, and of its entry in the file: ISO 8601, "" if unknown.
        source: Who has evaluated with what, and the file's name.
        file: Where it was read.
        few_shot: Solved examples in front of each question; None if unknown.
        lowest, highest: Bounds of the metric, in its unit; None if unknown.
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
    retrieved: str = ""
    few_shot: int | None = None
    lowest: float | None = None
    highest: float | None = None

    @property
    def when(self) -> str:
        """The date that says how new it is; "" where neither can be understood."""
        return next((each for each in (self.date, self.retrieved) if _YEAR.match(each)), "")

    def row(self) -> dict[str, Any]:
        """What a table of scores keeps of it, as plain JSON."""
        kept = ("score", "metric", "value", "standard_error", "n", "higher_is_better")
        return {name: getattr(self, name) for name in (*kept, *OF_OTHERS, "source")}


def read_results(places: Iterable[Path]) -> list[Result]:
    """The results in files, or in all files below directories.

    Args:
        places: JSON files of Every Eval Ever or of the harness, YAML files of repositories, or
            directories, or patterns (`runs/*/results_*.json`). Files of a directory or a pattern
            that are none of these are passed over.

    Raises:
        UserError: A place does not exist or has no results, or a file cannot be read; it is named
            with what is wrong in it.
    """
    found = []
    for place in places:
        pattern = str(place.relative_to(place.anchor))
        matches = [] if place.exists() else sorted(Path(place.anchor).glob(pattern))
        if not place.exists() and not matches:
            raise UserError(f"score.published: there is no file or directory {place}")
        if matches or place.is_dir():
            files = [file for each in matches or [place] for file in _files(each)]
            own = [result for file in dict.fromkeys(files) for result in _read(file) or []]
            if not own:
                raise UserError(f"score.published: no results below {place}: {_EXPECTED}")
        else:
            read = _read(place)
            if read is None:
                raise UserError(f"score.published: {place} holds no results: {_EXPECTED}")
            own = read
        found += own
    return found


def _files(place: Path) -> list[Path]:
    """A file, or the files below a directory that may hold results."""
    if not place.is_dir():
        return [place]
    return sorted(file for file in place.rglob("*") if file.suffix in (".json", ".yaml", ".yml"))


_EXPECTED = (
    "expected Every Eval Ever's JSON, results_*.json of lm-evaluation-harness, or "
    f"{FOLDER}/*.yaml of a model repository"
)


def of_repository(directory: Path) -> list[Result]:
    """The results that a model repository holds about its model."""
    files = sorted((directory / FOLDER).glob("*.y*ml"))
    return [result for file in files for result in _read(file) or []]


def one_each(results: Iterable[Result], several: Several = "refuse") -> list[Result]:
    """One result for each score and metric.

    Args:
        results: Of one checkpoint.
        several: What to do with two that differ: `refuse`, or take the `newest`.

    Raises:
        UserError: Two differ, and the newest is not asked for or their dates do not say which it
            is.
    """
    chosen: dict[tuple[str, str], Result] = {}
    for result in sorted(results, key=lambda each: each.when):  # stable: equal dates keep order
        key = result.score, result.metric
        other = chosen.get(key)
        if other and (other.value, other.few_shot) != (result.value, result.few_shot):
            remedy = "remove one of them, or set score.several: newest"
            if several == "newest":
                remedy = "no date says which is newer, so remove one of them"
            # An unknown date, or a day next to one of its hours, does not say which is newer.
            if several == "refuse" or result.when.startswith(other.when):
                raise UserError(
                    f"score.published: {other.file} has {_described(other)} and {result.file} has "
                    f"{_described(result)} for {result.score}, {result.metric}"
                    f"{f' of {result.model}' if result.model else ''}; {remedy}"
                )
        chosen[key] = result
    return list(chosen.values())


def _described(result: Result) -> str:
    about = [f"{result.few_shot}-shot"] if result.few_shot is not None else []
    about += [result.when] if result.when else []
    return f"{result.value:g}" + (f" ({', '.join(about)})" if about else "")


def demand_one_scale(results: Iterable[Result]) -> None:
    """Check that values of a score and metric can be compared: of all models of a study.

    Raises:
        UserError: Files disagree on its bounds or on whether larger is better, or a value is
            outside the bounds: per cent among fractions.
    """
    first: dict[tuple[str, str], Result] = {}
    # Those with bounds come first, so that all others are compared with them.
    for result in sorted(results, key=lambda each: (each.lowest is None, each.highest is None)):
        other = first.setdefault((result.score, result.metric), result)
        about = f"{other.file} and {result.file} disagree on {result.score}, {result.metric}"
        if result.higher_is_better != other.higher_is_better:
            raise UserError(f"score.published: {about}: is a higher value better or a lower one?")
        low, high = other.lowest, other.highest
        known = (result.lowest, result.highest)
        if (None not in (*known, low, high) and known != (low, high)) or not _within(
            result.value, low, high
        ):
            raise UserError(
                f"score.published: {about}: one has values from {_bound(low)} to {_bound(high)}, "
                f"the other {result.value:g}; give both in one unit"
            )


def _bound(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _read(file: Path) -> list[Result] | None:
    """The results of a file; None where it is of another kind."""
    in_yaml = file.suffix in (".yaml", ".yml")
    if in_yaml and file.parent.name != FOLDER:
        return None
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if in_yaml else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
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

    def part(self, mapping: Any, key: str, where: str = "") -> Mapping[str, Any]:
        """A mapping that may be missing."""
        if not isinstance(mapping, Mapping) or mapping.get(key) is None:
            return {}
        return dict(self.of(mapping, key, where, dict))

    def maybe(self, mapping: Mapping[str, Any], key: str, where: str) -> float | None:
        """A finite number that may be missing."""
        return None if mapping.get(key) is None else self.number(mapping, key, where)

    def count(self, mapping: Mapping[str, Any], key: str, where: str) -> int | None:
        """A whole number from 0 that may be missing."""
        number = self.maybe(mapping, key, where)
        if number is not None and (number < 0 or number != int(number)):
            raise self.wrong(f"{where}{key}", f"is {number:g}, not a count")
        return None if number is None else int(number)


def _every_eval_ever(content: Any, keys: _Keys, file: Path) -> list[Result]:
    version = keys.of(content, "schema_version", "", str)
    if not _KNOWN_SCHEMA.match(version):
        raise keys.wrong("schema_version", f"is {version}; versions 0.2 are understood")
    info = keys.of(content, "model_info", "", dict)
    model = str(info.get("id") or keys.of(info, "name", "model_info.", str))
    more = keys.part(info, "additional_details", "model_info.")
    revision = str(more.get("revision") or "")
    about = keys.of(content, "source_metadata", "", dict)
    library = keys.part(content, "eval_library")
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
        inside = f"{where}score_details."
        uncertainty = keys.part(details, "uncertainty", inside)
        inside += "uncertainty."
        error = keys.part(uncertainty, "standard_error", inside)
        low, high = (
            keys.maybe(config, key, f"{where}metric_config.") for key in ("min_score", "max_score")
        )
        if not _within(value, low, high):
            raise keys.wrong(
                f"{where}score_details.score",
                f"is {value:g}, outside the metric's {_bound(low)} to {_bound(high)}",
            )
        found.append(
            Result(
                model=model,
                revision=revision,
                score=_name(name),
                metric=_name(str(metric), _FILTER),
                value=value,
                standard_error=keys.maybe(error, "value", f"{inside}standard_error."),
                n=keys.count(uncertainty, "num_samples", inside) or 0,
                higher_is_better=not lower,
                date=_date(each.get("evaluation_timestamp") or content.get("evaluation_timestamp")),
                retrieved=_date(content.get("retrieved_timestamp")),
                source=f"{source}, {file.name}",
                file=file,
                lowest=low,
                highest=high,
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
    shots, samples = keys.part(content, "n-shot"), keys.part(content, "n-samples")
    versions, better = keys.part(content, "versions"), keys.part(content, "higher_is_better")
    found = []
    for task in keys.of(content, "results", "", dict):
        where = f"results.{task}."
        metrics = keys.of(content["results"], task, "results.", dict)
        few_shot = keys.count(shots, task, "n-shot.")
        n = keys.count(keys.part(samples, task, "n-samples."), "effective", f"n-samples.{task}.")
        is_better_of = keys.part(better, task, "higher_is_better.")
        for key in metrics:
            metric, _, kind = key.partition(",")
            numeric = isinstance(metrics[key], int | float) and not isinstance(metrics[key], bool)
            if metric in _NO_METRICS or metric.endswith("_stderr") or not numeric:
                continue
            error = metrics.get(f"{metric}_stderr,{kind}")
            is_better = is_better_of.get(metric)
            if is_better is None:
                is_better = not metric.endswith(_LOWER_IS_BETTER)
            about = [f"lm_eval {version}".strip(), f"task version {versions.get(task)}"]
            about += [f"{few_shot}-shot"] if few_shot is not None else []
            found.append(
                Result(
                    model=model,
                    revision=str(config.get("model_revision") or arguments.get("revision") or ""),
                    score=_name(task),
                    metric=_name(metric if kind in ("", "none") else key, _FILTER),
                    value=keys.number(metrics, key, where),
                    standard_error=_finite(error),
                    n=n or 0,
                    higher_is_better=bool(is_better),
                    date=_date(content.get("date")),
                    source=", ".join([*about, file.name]),
                    file=file,
                    few_shot=few_shot,
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
        source = keys.part(each, "source", where)
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
                date=_date(each.get("date")),
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


def _finite(error: Any) -> float | None:
    """A standard error; the harness writes "N/A" or NaN where it has none."""
    return error if isinstance(error, float) and math.isfinite(error) else None


def _date(given: Any) -> str:
    """ISO 8601 in UTC, of seconds since 1970 or a date; anything else as it is."""
    if given is None or given == "":
        return ""
    try:
        read = datetime.fromtimestamp(float(given), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        try:
            read = datetime.fromisoformat(str(given))
        except ValueError:
            return str(given)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", str(given)):
        return str(given)
    zone = read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    return zone.strftime("%Y-%m-%dT%H:%M:%SZ")
