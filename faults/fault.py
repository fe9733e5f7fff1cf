"""One fault: how often it was provoked, whether the work was finished after it, what was lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class NotHere(Exception):
    """A fault cannot be provoked on this machine; the message says why."""


@dataclass
class Outcome:
    """The outcome of one fault.

    Attributes:
        fault: Its description.
        provoked: How many times it was provoked.
        recovered: How many times the work was finished after it, by the instructions to the user.
        lost: Numbers that are missing or differ from those of the run without the fault.
        seen: What the user sees and does.
        seconds: How long all of it took.
        notes: What went wrong.
    """

    fault: str
    provoked: int = 0
    recovered: int = 0
    lost: int = 0
    seen: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def count(self, difference: list[str], lost: int) -> None:
        """Count one time that it was provoked, with the differences of its results."""
        self.provoked += 1
        self.recovered += not difference
        self.lost += lost
        self.notes += difference


Provoke = Callable[[Path], Iterator[Outcome]]


def contents(directory: Path, *folders: str) -> dict[str, str]:
    """SHA-256 of every file below folders of a directory, except Snakemake's own files."""
    files = (path for folder in folders for path in (directory / folder).rglob("*"))
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and path.name != ".snakemake_timestamp"
    }


def compare(directory: Path, reference: Path, *folders: str) -> tuple[list[str], int]:
    """Compare results with a reference: the first files that differ, and the numbers lost."""
    ours, theirs = contents(directory, *folders), contents(reference, *folders)
    if not theirs:
        raise AssertionError(f"{reference} has no results to compare with")
    different = sorted(
        path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)
    )
    if not different:
        return [], 0
    lost = sum(
        _numbers_lost(directory / path, reference / path) for path in sorted(_artifacts(different))
    )
    return [f"{path} differs" for path in different[:5]], lost


def _artifacts(files: list[str]) -> set[Path]:
    """The tables and stores that files belong to."""
    found = set()
    for file in map(Path, files):
        store = next((each for each in file.parents if each.suffix == ".zarr"), None)
        found.add(store or file)
    return found


def _numbers_lost(ours: Path, reference: Path) -> int:
    import pandas as pd

    theirs = _numbers(reference)
    try:
        found = _numbers(ours)
    except Exception:  # whatever the reason, it cannot be read: all of it is lost
        return sum(values.size for values in theirs.values())
    lost = 0
    for name, values in theirs.items():
        own = found.get(name)
        if own is None or own.shape != values.shape:
            lost += values.size
        else:
            equal = (own == values) | (pd.isna(own) & pd.isna(values))
            lost += int((~equal).sum())
    return lost


def _numbers(path: Path) -> dict[str, Any]:
    import pandas as pd
    import xarray as xr

    if path.suffix == ".zarr":
        ds = xr.open_zarr(path, consolidated=False)
        return {str(name): ds[name].to_numpy() for name in ds.variables}
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        return {str(name): table[name].to_numpy() for name in table.columns}
    return {}
