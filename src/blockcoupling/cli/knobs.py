"""Command-line options from the fields of a settings class; the inverse is `config.flags`."""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import typer

from blockcoupling.config.flags import as_word, option
from blockcoupling.config.measurement import Knobs
from blockcoupling.errors import UserError


class Except(NamedTuple):
    """Exceptions in one verb: `settings: Annotated[Extract, Except(without=("full",))]`.

    Attributes:
        without: Settings without an option.
        also: Further names of an option, by setting.
    """

    without: tuple[str, ...] = ()
    also: Mapping[str, str] = {}


def takes_settings(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb an option for each field of the models of settings among its parameters.

    Name, type, default, choices and help are the field's. Fields that the verb
    has parameters for are left to the verb.
    """
    own = inspect.signature(verb, eval_str=True).parameters
    parameters: list[inspect.Parameter] = []
    models: dict[str, tuple[type[Knobs], list[str]]] = {}
    for parameter in own.values():
        kind, but = _model(parameter.annotation)
        if kind is None:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        names = [n for n in kind.model_fields if n not in own and n not in but.without]
        models[parameter.name] = kind, names
        parameters += [_parameter(kind, name, but.also.get(name)) for name in names]

    @wraps(verb)
    def with_options(**given: Any) -> None:
        for parameter, (kind, names) in models.items():
            given[parameter] = _read(kind, {name: given.pop(name) for name in names})
        verb(**given)

    vars(with_options).update(__signature__=inspect.Signature(parameters), __annotations__={})
    return with_options


def _model(annotation: Any) -> tuple[type[Knobs] | None, Except]:
    kind, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    but = next((note for note in notes if isinstance(note, Except)), Except())
    return (kind if isinstance(kind, type) and issubclass(kind, Knobs) else None), but


def _parameter(kind: type[Knobs], name: str, also: str | None) -> inspect.Parameter:
    field, default = kind.model_fields[name], kind.defaults()[name]
    annotation, constraints = _plain(field.annotation, field.metadata)
    words = [option(name), *([also] if also else [])]
    about: dict[str, Any] = {"help": " ".join((field.description or "").split())}
    if annotation is bool and default:
        words = []  # typer makes --name / --no-name
    elif annotation is int:
        above = next((c.gt + 1 for c in constraints if hasattr(c, "gt")), None)
        about["min"] = next((c.ge for c in constraints if hasattr(c, "ge")), above)
    elif _in_json(annotation):
        annotation, about["metavar"] = str, "WORD|JSON"
        default = default if default is None else as_word(default)
    if default is None:
        annotation = annotation | None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[annotation, typer.Option(*words, **about)],
    )


def _plain(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """A field's type without `| None` and `Annotated`, and its constraints."""
    if NoneType in get_args(annotation):
        (annotation,) = (each for each in get_args(annotation) if each is not NoneType)
    if get_origin(annotation) is Annotated:
        annotation, *constraints = get_args(annotation)
        metadata = [*metadata, *constraints]
    return annotation, metadata


def _in_json(annotation: Any) -> bool:
    return annotation not in (bool, int, float, str) and get_origin(annotation) is not Literal


def _read(kind: type[Knobs], given: dict[str, Any]) -> Knobs:
    in_json = {
        name
        for name in given
        if _in_json(_plain(kind.model_fields[name].annotation, [])[0]) and given[name] is not None
    }
    values = {n: _from_word(v, option(n)) if n in in_json else v for n, v in given.items()}
    try:
        return kind.of(values)
    except UserError as error:
        if any(str(error).startswith(f"{n} = ") or f"\n{n} = " in str(error) for n in in_json):
            raise UserError(f"{error}\nWrite lists and mappings as JSON.") from None
        raise


def _from_word(text: str, where: str) -> Any:
    """A word alone, or JSON."""
    return text if text.isidentifier() else read_json(text, where)


def read_json(text: str, where: str) -> Any:
    """JSON given on the command line, or in a file named after an @.

    Raises:
        UserError: It is none, or the file cannot be read.
    """
    if text.startswith("@"):
        where = text[1:]
        text = read_text(Path(where))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error}") from error


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
