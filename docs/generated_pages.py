"""Pages of the site that are made from the code: keys, command line, kinds, and files elsewhere."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from blockcoupling.catalog.columns import COLUMNS
from blockcoupling.catalog.kinds import KINDS
from blockcoupling.cli import app
from blockcoupling.config.populations import MARKS, Population
from blockcoupling.config.section import OneOf, Unit
from blockcoupling.config.study import Study
from blockcoupling.store.comparisons import COMPARISONS
from blockcoupling.store.damage import DAMAGE
from blockcoupling.store.schema import Schema
from blockcoupling.store.svd import SVD

ELSEWHERE = {
    "catalog": "catalog/README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
}


def write(docs: Path) -> None:
    """Write all pages into `docs/generated`; those that are right already keep their time."""
    pages = {"keys": keys(), "command-line": command_line(), "kinds": kinds()}
    for name, path in ELSEWHERE.items():
        pages[name] = _seen_from_generated((docs.parent / path).read_text(encoding="utf-8"))
    (docs / "generated").mkdir(exist_ok=True)
    for name, text in pages.items():
        page = docs / "generated" / f"{name}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def relink(app: Any, name: str, source: list[str]) -> None:
    """Let links of pages to documents outside of `docs` lead to their copies in the site."""
    up = "../" * name.count("/")
    for page, path in ELSEWHERE.items():
        source[0] = re.sub(
            rf"\]\((?:\.\./)+{re.escape(path)}", f"]({up}generated/{page}.md", source[0]
        )


def arrows_as_tables(app: Any, name: str, source: list[str]) -> None:
    """Show diagrams of arrows, which need scripts of another host, as tables."""

    def table(block: re.Match[str]) -> str:
        to: dict[str, list[str]] = {}
        for start, end in re.findall(r"(\w+) --> (\w+)", block[0]):
            to.setdefault(start, []).append(f"`{end}`")
        lines = [f"| `{start}` | → {', '.join(ends)} |" for start, ends in to.items()]
        return "\n".join(["| package | imports |", "|---|---|", *lines])

    source[0] = re.sub(r"```mermaid\n.*?```", table, source[0], flags=re.DOTALL)


def _seen_from_generated(text: str) -> str:
    text = re.sub(r"\]\((?:\.\./)?docs/", "](../", text)
    for page, path in ELSEWHERE.items():
        text = text.replace(f"]({path}", f"]({page}.md")
    return re.sub(r"\]\((config/[^)]*)\)", r"](../../\1)", text)


# --- keys of a study


def keys() -> str:
    """Every key of a study's configuration, from its pydantic classes."""
    lines = [
        "# Every key of a study",
        "",
        "Made from the classes that check a configuration. What the keys are for, with examples: "
        "[Adding models, prompts and scores](../adding-models.md).",
        "",
    ]
    for path, section in sections():
        title = f"`{path}`{_kind(section)}" if path else "A study"
        summary = (inspect.getdoc(section) or "").split("\n\n", maxsplit=1)[0]
        lines += [f"## {title}", "", f"*{section.__name__}.* {_flat(summary)}", ""]
        lines += ["| key | meaning | type, unit | default | example |", "|---" * 5 + "|"]
        texts = docstrings(section)
        for name, field in section.model_fields.items():
            if field.exclude or name.startswith("_"):
                continue
            inner = sections_of(field.annotation, field.metadata)
            meaning = field.description or texts.get(name, "")
            if len(inner) > 1 and not meaning:
                meaning = "one of the kinds below"
            elif inner and not meaning:
                meaning = (inspect.getdoc(inner[0]) or "").split("\n\n", maxsplit=1)[0]
            kind = ", ".join(filter(None, [type_of(field.annotation), unit_of(field)]))
            cells = [f"`{name}`", _flat(meaning), kind, default_of(field)]
            cells += ["" if inner else example_of(section, name)]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of a configuration once, with the path of the key that holds it."""
    done: set[type] = set()
    waiting: list[tuple[str, type[BaseModel]]] = [("", Study), ("models", Population)]
    while waiting:
        path, section = waiting.pop(0)
        if section in done:
            continue
        done.add(section)
        yield path, section
        for name, field in section.model_fields.items():
            if not field.exclude:
                inner = sections_of(field.annotation, field.metadata)
                waiting += [(f"{path}.{name}".strip("."), each) for each in inner]


def _kind(section: type[BaseModel]) -> str:
    """Which of several sections of the same key it is."""
    if section is Population:
        return " with " + " or ".join(f"`{mark}`" for mark in MARKS)
    for name in ("source", "architecture"):
        field = section.model_fields.get(name)
        if field is not None and typing.get_origin(field.annotation) is typing.Literal:
            return f" with `{name}: {field.default}`"
    return ""


def docstrings(section: type[BaseModel]) -> dict[str, str]:
    """The sentences below the fields of a class and of those that it is made of, by field."""
    found: dict[str, str] = {}
    for each in reversed(section.__mro__):
        if not (isinstance(each, type) and issubclass(each, BaseModel)) or each is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found


def sections_of(annotation: Any, metadata: Any = ()) -> list[type[BaseModel]]:
    """The sections that a field may hold."""
    chosen = [
        section
        for each in metadata
        if isinstance(each, OneOf)
        for section in each.sections.values()
    ]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return chosen or [annotation]
    inner = list(getattr(annotation, "__metadata__", ()))
    for each in typing.get_args(annotation):
        chosen += [s for s in sections_of(each, inner) if s not in chosen]
    return chosen


def type_of(annotation: Any) -> str:
    """A type as a user would say it."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_of(inner[0])
    if origin is typing.Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_of(each) for each in inner if each is not type(None)))
    if origin is dict:
        return f"names, each with {type_of(inner[1])}" if inner else "names"
    if origin is not None and inner:
        return f"list of {type_of(inner[0])}"
    plain = {bool: "yes or no", int: "whole number", float: "number", str: "text", Path: "path"}
    plain[Any] = "anything"
    section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    name = "section" if section else getattr(annotation, "__name__", str(annotation))
    return plain.get(annotation, name)


def default_of(field: Any) -> str:
    """The default of a field."""
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "see text" if field.default_factory else ""
    if field.default is None:
        return "none"
    if isinstance(field.default, BaseModel) or (
        isinstance(field.default, dict)
        and any(isinstance(v, BaseModel) for v in field.default.values())
    ):
        return "its defaults"
    shown = (
        {True: "yes", False: "no"}.get(field.default) if isinstance(field.default, bool) else None
    )
    return f"`{shown or field.default}`".replace("|", "\\|")


def unit_of(field: FieldInfo) -> str:
    """The unit of a number, or nothing."""
    return ", ".join(each.name for each in _marks(field) if isinstance(each, Unit))


def _declared(field: FieldInfo) -> list[Any]:
    marks = _marks(field)
    units = [each.example for each in marks if isinstance(each, Unit) and each.example is not None]
    inner = [each.examples for each in marks if isinstance(each, FieldInfo) and each.examples]
    return [*(field.examples or []), *units, *(value for each in inner for value in each)]


def _marks(field: FieldInfo) -> list[Any]:
    """What marks a field or a part of its type."""
    marks, waiting = list(field.metadata), [field.annotation]
    while waiting:
        part = waiting.pop()
        marks += getattr(part, "__metadata__", ())
        waiting += typing.get_args(part)
    return marks


def example_of(section: type[BaseModel], name: str) -> str:
    """A key as one writes it: as declared, as in a study of this project, or with a value."""
    field = section.model_fields[name]
    values = _declared(field)
    values += [used()[owner(section, name)]] if owner(section, name) in used() else []
    values += [each for each in _choices(field.annotation) if each != field.default]
    values += [] if field.default in (None, PydanticUndefined, [], {}) else [field.default]
    if not values:
        return ""
    value = f"{values[0]:.1e}" if isinstance(values[0], float) and values[0] > 1e6 else values[0]
    value = str(value) if isinstance(value, Path) else value
    text = yaml.safe_dump({name: value}, default_flow_style=True, width=10**6)
    return f"`{text.strip()[1:-1]}`".replace("|", "\\|").replace("'", "")


def _choices(annotation: Any) -> list[Any]:
    """The values that a type allows, where they are few."""
    if annotation is bool:
        return [True, False]
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [value for part in typing.get_args(annotation) for value in _choices(part)]


def owner(section: type[BaseModel], name: str) -> tuple[type, str]:
    """The class that a key comes from, and the key."""
    return next(each for each in section.__mro__ if name in inspect.get_annotations(each)), name


@cache
def used() -> dict[tuple[type, str], Any]:
    """The first value of every key in the studies of this project."""
    found: dict[tuple[type, str], Any] = {}
    config = Path(__file__).parents[1] / "config"
    for file in [config / "config.yaml", *sorted((config / "studies").glob("*.yaml"))]:
        _look_into(Study, yaml.safe_load(file.read_text(encoding="utf-8")), found)
    return found


def _look_into(section: type[BaseModel], data: dict[str, Any], found: dict[Any, Any]) -> None:
    for name, value in data.items():
        field = section.model_fields.get(name)
        if field is None:
            continue
        inner = sections_of(field.annotation, field.metadata)
        if not inner:
            found.setdefault(owner(section, name), value)
        elif isinstance(value, dict):
            parts = [field.annotation, *typing.get_args(field.annotation)]
            named = any(typing.get_origin(part) is dict for part in parts)
            for each in value.values() if named else [value]:
                if isinstance(each, dict):
                    best = max(inner, key=lambda kind: len(set(each) & set(kind.model_fields)))
                    _look_into(best, each, found)
                    if set(each) & set(MARKS):
                        _look_into(Population, each, found)


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# --- the command line


def command_line() -> str:
    """Every verb and option, from typer."""
    group: Any = typer.main.get_command(app)
    lines = ["# Command line", "", _help(group), ""]
    for name, verb in group.commands.items():
        if verb.hidden:
            continue
        lines += [f"## `blockcoupling {name}`", "", _help(verb), ""]
        rows = [_row(each) for each in verb.params if not getattr(each, "hidden", False)]
        if rows:
            lines += ["| option | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _help(verb: Any) -> str:
    return inspect.cleandoc(verb.help or "").replace("\b\n", "")


def _row(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    shown = ""
    if not (parameter.default in (None, False, ()) or callable(parameter.default)):
        shown = f"`{parameter.default}`"
    if parameter.required:
        shown = "required"
    text = getattr(parameter, "help", None) or ""
    cells = [", ".join(f"`{name}`" for name in names), shown.replace("|", "\\|"), _flat(text)]
    return "| " + " | ".join(cells) + " |"


# --- kinds of entries, variables of stores


def kinds() -> str:
    """The kinds of catalog entries, and the variables of each kind of store."""
    lines = [
        "# Kinds of artifacts, columns of tables, variables of stores",
        "",
        "The columns of the statistics: [Statistics](../statistics.md).",
        "",
        "| kind | holds | made by |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {_flat(k.holds)} | `{k.made_by}` |" for name, k in KINDS.items()]
    for kind, columns in COLUMNS.items():
        lines += [
            "",
            f"## Columns of `{kind}`",
            "",
            "| name | data type | meaning |",
            "|---|---|---|",
        ]
        lines += [f"| `{name}` | {c.dtype} | {_flat(c.meaning)} |" for name, c in columns.items()]
    stores: dict[str, Schema] = {"svd": SVD, "token_products": COMPARISONS, "block_damage": DAMAGE}
    for kind, schema in stores.items():
        lines += ["", f"## Variables of `{kind}`", ""]
        lines += ["| name | axes | data type | presence | meaning |", "|---|---|---|---|---|"]
        for name, each in {**schema.variables, **schema.coordinates}.items():
            cells = [
                f"`{name}`",
                ", ".join(each.dims),
                " or ".join(each.dtypes),
                "optional" if each.optional else "always",
                _flat(each.meaning),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
