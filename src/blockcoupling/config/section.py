"""What the sections of a configuration share: unknown keys, names, paths, a choice by source."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from blockcoupling.config.yaml_file import as_text, meant
from blockcoupling.errors import UserError
from blockcoupling.wording import did_you_mean

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]


@dataclass(frozen=True)
class Unit:
    """The unit of a number and, where its default is none, an example; for the documentation."""

    name: str
    example: float | None = None


class Section(BaseModel):
    """A mapping of the configuration; a key that is not one of its fields is a mistake."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest_key(cls, data: Any, handler: Any) -> Any:
        try:
            return handler(cls.as_meant(data) if isinstance(data, Mapping) else data)
        except ValidationError as error:
            lines: list[InitErrorDetails] = []
            for line in error.errors():
                message = line["msg"]
                if line["type"] == "extra_forbidden" and len(line["loc"]) == 1:
                    message = f"unknown key{did_you_mean(line['loc'][0], cls.model_fields)}"
                context = {k: v for k, v in line.get("ctx", {}).items() if k != "error"}
                context = {"kind": line["type"], **context, "message": message}
                mistake = PydanticCustomError("mistake", "{message}", context)
                lines.append({"type": mistake, "loc": line["loc"], "input": line["input"]})
            raise ValidationError.from_exception_data(cls.__name__, lines) from None

    @classmethod
    def as_meant(cls, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Each word of a file as its field takes it: as text, or for what YAML takes it for."""
        read = {}
        for key, value in data.items():
            field = cls.model_fields.get(key)
            kinds = _kinds(field.annotation) if field is not None else {Any}
            sections = [k for k in kinds if isinstance(k, type) and issubclass(k, Section)]
            if sections:
                # Of several kinds, the one that reads the section will know.
                one = sections[0].as_meant if len(sections) == 1 else dict
                named = any(get_origin(kind) is dict for kind in kinds)
                read[str(key)] = _sections(value, one, named)
            elif {str, Path} & kinds and Any not in kinds:
                read[str(key)] = as_text(value)
            else:
                read[str(key)] = meant(value)
        return read

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_a_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if {int, float} & kinds and bool not in kinds:
            several = value.values() if isinstance(value, Mapping) else value
            for each in several if isinstance(value, list | Mapping) else [value]:
                if isinstance(each, bool):
                    raise ValueError("should be a number, not a yes or no")
        return value


def _sections(value: Any, one: Callable[[Mapping[Any, Any]], Any], named: bool) -> Any:
    """The section that a value is, or those that it names, each read by `one`."""
    if not isinstance(value, Mapping):
        return meant(value)
    if not named:
        return one(value)
    return {
        as_text(name): one(section) if isinstance(section, Mapping) else section
        for name, section in value.items()
    }


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    parts = get_args(annotation)
    return {annotation}.union(*map(_kinds, parts)) if parts else {annotation}


@dataclass(frozen=True)
class OneOf:
    """Sections of several kinds: `source` names the kind; without it, a characteristic key decides.

    Attributes:
        sections: Source → the section.
        marks: Source by a key that only its sections have.
        key: The key that names the kind, if not `source`.
        default: The kind if neither is given.
    """

    sections: Mapping[str, type[Section]]
    marks: Mapping[str, str]
    key: str = "source"
    default: str | None = None

    def kind(self, data: Mapping[Any, Any]) -> type[Section]:
        """The kind of a section.

        Raises:
            ValueError: The kind is missing or unknown.
        """
        marked = (self.marks[key] for key in self.marks if key in data)
        source = data.get(self.key) or next(marked, None) or self.default
        if source is None:
            raise ValueError(f"{self.key} is missing: one of {', '.join(self.sections)}")
        if source not in self.sections:
            raise ValueError(f"unknown {self.key} {source!r}{did_you_mean(source, self.sections)}")
        return self.sections[source]

    def validator(self) -> Any:
        """Validates with the section of the kind that the data have."""

        def parse(data: Any) -> Any:
            if isinstance(data, tuple(self.sections.values())):
                return data
            if not isinstance(data, Mapping):
                raise ValueError(
                    f"should be a mapping with a {self.key}: {', '.join(self.sections)}"
                )
            kind = self.kind(data)
            named = {self.key} - set(kind.model_fields)
            return kind.model_validate({k: v for k, v in data.items() if k not in named})

        return _ReadBy(parse)


@dataclass(frozen=True)
class _ReadBy:
    """Marks a field that a function reads; it is written as the section that it holds.

    Pydantic's own PlainValidator holds what was written against the annotation, and warns.
    """

    read: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        written = core_schema.plain_serializer_function_ser_schema(
            lambda section, info: section.model_dump(mode=info.mode), info_arg=True
        )
        return core_schema.no_info_plain_validator_function(self.read, serialization=written)


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
        line: The mistake as pydantic reports it.
        defaults: Defaults of the settings that can be given.
        known: Names that a wrong one may have been meant for.
    """
    if not line["loc"]:
        return _message(line)
    name, context = str(line["loc"][0]), line.get("ctx", {})
    if context.get("kind") == "extra_forbidden":
        return f"unknown setting {name}{did_you_mean(name, known)}"
    match context.get("kind"):
        case "literal_error":
            message = "choose " + ", ".join(re.findall("'(.*?)'", context["expected"]))
        case "greater_than":
            message = f"choose one above {context['gt']:g}"
            if defaults[name] is not None:
                message += f", such as {defaults[name]:.0e}".replace("e-0", "e-")
        case _:
            message = _message(line)
    return f"{name} = {line['input']!r}: {message}"


def _message(line: Any) -> str:
    return line["msg"].removeprefix("Value error, ").replace("Input should", "should")
