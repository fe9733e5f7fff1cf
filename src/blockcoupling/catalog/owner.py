"""The study that a catalog file belongs to: one file, one study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from blockcoupling.catalog.plain import relative

HEAD = '"metadata": '
"""Beginning of the line in a catalog file that names its study."""

_LINES = 3


class Owner(NamedTuple):
    """A study: its name, and where its results go, seen from the catalog."""

    study: str
    results: str

    @classmethod
    def of(cls, study: str, results: str | Path, catalog: str | Path) -> Owner:
        """Return the owner that a study writes into a catalog file."""
        return cls(study, relative(Path(results), Path(catalog).parent))


def owner_of(catalog: str | Path) -> Owner | None:
    """Return the owner of a catalog file; None without a file, or if it names none.

    Only the beginning of the file is read: every job of a workflow asks.
    """
    try:
        with Path(catalog).open(encoding="utf-8") as lines:
            head = [line for line, _ in zip(lines, range(_LINES), strict=False)]
        found = next(line for line in head if line.startswith(HEAD))
        said: Any = json.loads(found.removeprefix(HEAD).rstrip().rstrip(","))
        return Owner(str(said["study"]), str(said["results"]))
    except (OSError, StopIteration, ValueError, KeyError, TypeError):
        return None  # opening it reports the problem, or it is written again


def taken(catalog: str | Path, study: str, results: str | Path) -> str | None:
    """Return why a study may not write a catalog file: it is another's. None if it may.

    Args:
        catalog: the file.
        study: name of the study that wants to write it.
        results: its directory of results.
    """
    owner = owner_of(catalog)
    if owner is None:
        return None
    place = Path(catalog).parent / owner.results
    if owner.study == study and place.resolve() == Path(results).resolve():
        return None
    return (
        f"{catalog} is the catalog of the study {owner.study!r}, whose results are in "
        f"{_short(place)}: name another file as `catalog`, or remove this one if it is not needed"
    )


def _short(place: Path) -> str:
    """Return a path without `..` where that can be, from here if it is below."""
    whole = place.resolve()
    here = Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)
