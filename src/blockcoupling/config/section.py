"""What the sections of a configuration share: unknown keys, names, paths, a choice by source."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainValidator,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from blockcoupling.errors import UserError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]


def did_you_mean(word: object, known: Any) -> str:
    """`; did you mean X?` for the nearest of `known`, or all of them where none is near."""
    names = sorted(map(str, known))
    near = get_close_matches(str(word), names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; it can be {', '.join(names)}"


class Section(BaseModel):
    """A mapping of the configuration; a key that is not one of its fields is a mistake."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest_key(cls, data: Any, handler: Any) -> Any:
        try:
            return handler(data)
        except ValidationError as error:
            lines: list[InitErrorDetails] = []
            for line in error.errors():
                message = line["msg"]
                if line["type"] == "extra_forbidden" and len(line["loc"]) == 1:
                    message = f"unknown key{did_you_mean(line['loc'][0], cls.model_fields)}"
                told = {k: v for k, v in line.get("ctx", {}).items() if k != "error"}
                told = {"kind": line["type"], **told, "message": message}
                mistake = PydanticCustomError("mistake", "{message}", told)
                lines.append({"type": mistake, "loc": line["loc"], "input": line["input"]})
            raise ValidationError.from_exception_data(cls.__name__, lines) from None


def one_of(sections: Mapping[str, type[Section]], marks: Mapping[str, str]) -> Any:
    """Validate with the section that `source` names; without `source`, a telling key decides."""

    def parse(data: Any) -> Any:
        if isinstance(data, tuple(sections.values())):
            return data
        if not isinstance(data, Mapping):
            raise ValueError(f"should be a mapping with a source: {', '.join(sections)}")
        marked = (marks[key] for key in marks if key in data)
        source = data.get("source") or next(marked, None)
        if source is None:
            raise ValueError(f"source is missing: one of {', '.join(sections)}")
        if source not in sections:
            raise ValueError(f"unknown source {source!r}{did_you_mean(source, sections)}")
        return sections[source].model_validate(data)

    return PlainValidator(parse)


def parse(kind: Any, data: Any, origin: str) -> Any:
    """Validate `data` as a section.

    Args:
        kind: A section, or one of the annotations `Model` and `Dataset`.
        data: The mapping.
        origin: What it is, for the message.

    Raises:
        UserError: listing every mistake.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise UserError(mistakes(origin, [sentence(line) for line in error.errors()])) from error


def mistakes(origin: str, sentences: list[str]) -> str:
    """All mistakes as one message, one a line."""
    count = "1 mistake" if len(sentences) == 1 else f"{len(sentences)} mistakes"
    return "\n".join([f"{origin} has {count}:", *(f"  - {each}" for each in sentences)])


def sentence(line: Any) -> str:
    """One mistake found by pydantic, as `where: what`."""
    where = [str(part) for part in line["loc"] if part != "[key]"]
    message = _message(line)
    if message.startswith("String should match pattern '^[A-Za-z0-9][A-Za"):
        message = "a name has letters, digits, '.', '_' and '-', and begins with a letter or digit"
    if message == "Field required":
        message = "is missing"
    elif isinstance(line["input"], str | int | float) and "did you mean" not in message:
        message += f" (not {line['input']!r})"
    return f"{'.'.join(where)}: {message}" if where else message


def complaint(line: Any, defaults: Mapping[str, Any], known: Iterable[str]) -> str:
    """One mistake found by pydantic in settings given by name, as `name = value: what to choose`.

    Args:
        line: As pydantic tells it.
        defaults: Of the settings that can be given.
        known: Names that a wrong one may have been meant for.
    """
    if not line["loc"]:
        return _message(line)
    name, told = str(line["loc"][0]), line.get("ctx", {})
    if told.get("kind") == "extra_forbidden":
        return f"unknown setting {name}{did_you_mean(name, known)}"
    match told.get("kind"):
        case "literal_error":
            message = "choose " + ", ".join(re.findall("'(.*?)'", told["expected"]))
        case "greater_than":
            message = f"choose one above {told['gt']:g}"
            if defaults[name] is not None:
                message += f", such as {defaults[name]:.0e}".replace("e-0", "e-")
        case _:
            message = _message(line)
    return f"{name} = {line['input']!r}: {message}"


def _message(line: Any) -> str:
    return line["msg"].removeprefix("Value error, ").replace("Input should", "should")
