"""Options that several verbs share, and how they are read."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from blockcoupling.cli.app import words_typed
from blockcoupling.cli.knobs import read_json
from blockcoupling.cli.secrets import without_secrets
from blockcoupling.config.variants import VARIANTS
from blockcoupling.errors import UserError

if TYPE_CHECKING:
    from blockcoupling.config.section import Section

    Variant = str
else:  # typer takes a list of choices as an Enum only
    Variant = StrEnum("Variant", {name: name for name in VARIANTS})


SomeSection = TypeVar("SomeSection", bound="Section")


class Checkpoints(StrEnum):
    """Which checkpoints of a model are points of a correlation."""

    all = "all"
    final = "final"


class Independent(StrEnum):
    """What counts as an independent unit of a correlation."""

    model = "model"
    family = "family"


Spec = Annotated[
    str,
    typer.Option(
        metavar="JSON|@FILE",
        help="What to make: JSON, or @ and the name of a JSON file.",
    ),
]
Out = Annotated[Path, typer.Option(help="Output file.")]
CatalogFile = Annotated[Path, typer.Option(help="The catalog of the study.")]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1`, …")]
Entries = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Also write DIR/KIND.yml, a catalog entry for each output."),
]
Facets = Annotated[
    list[str] | None,
    typer.Option(
        "--facet",
        metavar="KEY=VALUE",
        help="Facet of the catalog entry, such as model=tiny; can be repeated.",
    ),
]

ONE_MODEL, STEPS = "One model", "Steps of a study"


def read_spec(text: str) -> dict[str, Any]:
    """The JSON object given with --spec.

    Raises:
        UserError: It is not JSON, or not an object.
    """
    spec = read_json(text, "--spec")
    if not isinstance(spec, dict):
        raise UserError('--spec must be a JSON object, such as {"name": "tiny"}')
    return spec


def read_as(kind: type[SomeSection], spec: dict[str, Any]) -> SomeSection:
    """A section of a study from a JSON object.

    Raises:
        UserError: A key is unknown or a value wrong.
    """
    from pydantic import ValidationError

    from blockcoupling.config.section import sentence

    try:
        return kind.model_validate(spec)
    except ValidationError as error:
        raise UserError("\n".join(f"--spec: {sentence(line)}" for line in error.errors())) from None


def read_facets(pairs: list[str] | None) -> dict[str, str]:
    """Facets by name, out of KEY=VALUE.

    Raises:
        UserError: One has no equals sign.
    """
    return read_pairs("--facet", pairs)


def read_pairs(option: str, pairs: list[str] | None) -> dict[str, str]:
    """Return the values of a repeated option KEY=VALUE.

    Raises:
        UserError: One has no equals sign.
    """
    if wrong := [pair for pair in pairs or [] if "=" not in pair]:
        raise UserError(f"{option} takes KEY=VALUE, not {', '.join(map(repr, wrong))}")
    return dict(pair.split("=", 1) for pair in pairs or [])


def enter(
    directory: Path | None,
    artifacts: dict[str, Path],
    facets: dict[str, str] | None = None,
    made_from: dict[str, Path] | None = None,
) -> None:
    """Write the entry file of each artifact, if a directory for them is given.

    Args:
        directory: of the entry files.
        artifacts: by kind.
        facets: what the catalog finds them by.
        made_from: what the verb has read, by what that was to it; `model` is a model's record.
    """
    if directory is not None:
        from blockcoupling.catalog import write_entry

        made = how_made(made_from or {})
        for kind, path in artifacts.items():
            write_entry(directory / f"{kind}.yml", kind, path, facets, made)


def how_made(made_from: dict[str, Path]) -> dict[str, Any]:
    """What an entry says of how its artifact was made, by the verb that runs."""
    from blockcoupling.catalog.making import making
    from blockcoupling.sources.records import read_record

    record = read_record(made_from["model"]) if "model" in made_from else None
    if record is not None and record.get("source") == "train":
        record["training"] = json.loads((Path(record["path"]) / "training.json").read_text())
    return making(list(map(without_secrets, words_typed.get())), made_from, record)
