"""A file of models that studies take by name, with what is known of each before it is downloaded.

`config/models.yaml` is one. A model's `facts` hold the values of a paper's table (`table`) and
of the model's own configuration (`config`); `differences` lists where they disagree.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from blockcoupling.config.models import MODELS
from blockcoupling.config.populations import MARKS as POPULATIONS
from blockcoupling.config.section import Name, Section, mistakes, sentence
from blockcoupling.config.yaml_file import read_yaml
from blockcoupling.errors import UserError
from blockcoupling.wording import did_you_mean

PLACES = ("source", "train", "path", "id", *POPULATIONS)
"""Keys that say where a model comes from; an entry of a study that has one is not looked up."""
ROUNDING = 0.05
"""Relative difference of two numbers of parameters that may be rounding."""


class Suite(Section):
    """A file of models: their sections, as in a study, and where their facts were read."""

    sources: dict[Name, str] = Field(default={})
    models: dict[Name, dict[str, Any]] = Field(min_length=1)

    @field_validator("models", mode="before")
    @classmethod
    def _as_the_section_of_a_study(cls, models: Any) -> Any:
        # What a word is, the kind of section knows that a study will take it for.
        if not isinstance(models, Mapping):
            return models
        return {
            str(name): MODELS.kind(section).as_meant(section)
            if isinstance(section, Mapping)
            else section
            for name, section in models.items()
        }

    @classmethod
    def as_meant(cls, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """The words outside of the models' sections; those have kinds of their own."""
        others = {key: value for key, value in data.items() if key != "models"}
        return super().as_meant(others) | {k: v for k, v in data.items() if k not in others}


def read_suite(path: Path) -> Suite:
    """Read a file of models. Their sections are checked when a study takes them.

    Raises:
        UserError: it cannot be read or is no such file.
    """
    data = read_yaml(path, "list of models")
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        lines = [sentence(line) for line in error.errors()]
        raise UserError(mistakes(str(path), lines)) from error


def with_suite(study: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A study's configuration with the models that it takes from its `suite` written out.

    `models` may be a list of names, or a mapping in which a model without anything after its name
    is taken as it is, and keys after its name replace those of the suite.

    Returns:
        The configuration, its `models` a mapping, and what is wrong with the names. A name that is
        wrong is left out, so that it is complained about once.
    """
    data, models = dict(study), study.get("models")
    if isinstance(models, list):
        models = dict.fromkeys(map(str, models))
    if not isinstance(models, Mapping):
        return data, []
    place, listed, found = study.get("suite"), {}, []
    if isinstance(place, str | Path):
        try:
            listed = read_suite(Path(place).expanduser()).models
        except UserError as error:
            return data | {"models": _own(models)}, [f"suite: {line}" for line in _lines(error)]
    elif any(section is None for section in models.values()):
        found.append(
            "models: names alone are looked up in a file of models; say which, for example "
            "suite: config/models.yaml"
        )
        return data | {"models": _own(models)}, found
    taken: dict[str, Any] = {}
    for name, section in models.items():
        if _says_where(section) or not isinstance(section, Mapping | None):
            taken[name] = section
        elif name in listed:
            taken[name] = {**listed[name], **(section or {})}
        elif place is not None:
            found.append(f"models.{name}: is not in {place}{did_you_mean(name, listed)}")
        else:
            taken[name] = section
    return data | {"models": taken}, found


def differences(facts: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where a paper's table and a model's own configuration do not agree.

    Args:
        facts: A model's facts; `table` and `config` are compared where both say something.

    Returns:
        Name of the fact: (what the table says, what the model says). Numbers of parameters differ
        where rounding to the table's digits does not explain it (5 %).
    """
    table, own = facts.get("table") or {}, facts.get("config") or {}
    found = {}
    for name in table:
        said, true = table[name], own.get(name)
        if said is None or true is None or said == true:
            continue
        if name != "parameters" or abs(said - true) > ROUNDING * true:
            found[name] = (said, true)
    return found


def contradictions(record: Mapping[str, Any]) -> list[str]:
    """Where a model, looked up, is not what the facts in its section say it is.

    Args:
        record: a model's record (`models.model_record`); its own parameters, blocks and dimension
            are compared with `facts.config`.

    Returns:
        One sentence each; parameters are allowed what `differences` allows.
    """
    stated = (record.get("facts") or {}).get("config") or {}
    known = {name: stated.get(name) for name in ("parameters", "blocks", "dimension")}
    return [
        f"facts.config of {record['name']} says {name} = {said}, and the model has {true}: "
        "correct the fact, or check whether this is the intended model"
        for name, (said, true) in differences({"table": known, "config": record}).items()
    ]


def _says_where(section: Any) -> bool:
    return isinstance(section, Mapping) and any(key in section for key in PLACES)


def _own(models: Mapping[str, Any]) -> dict[str, Any]:
    """Those that need no looking up: the others would only be complained about again."""
    return {name: section for name, section in models.items() if _says_where(section)}


def _lines(error: UserError) -> list[str]:
    return [line.strip().removeprefix("- ") for line in str(error).splitlines()]
