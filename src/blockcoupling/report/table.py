"""Tables of text, and how values become text in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from blockcoupling.statistics.predictors import LABELS
from blockcoupling.wording import MISSING, interval, number, words

Row = Mapping[Any, Any]
Cells = dict[str, Callable[[Row], str]]
"""The columns of a table: heading → the text of a cell, from a row of data."""

NOTE = "note"
"""The column whose repeated sentences are numbered and written once, below the table."""


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        caption: what the numbers are.
        columns: headings.
        rows: cells, as text.
        words: the columns that are not numbers.
        title: of the fold that the table is in; empty if it is shown.
        notes: sentences that the cells of the last column refer to by number, from 1.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    title: str = ""
    notes: Sequence[str] = ()


def tabulate(
    rows: Iterable[Row], cells: Cells, caption: str, *, words: Sequence[str], title: str = ""
) -> Table:
    """Make a table with a row of text for each row of data.

    Args:
        rows: the data.
        cells: the columns.
        caption: of the table.
        words: as in :class:`Table`.
        title: as in :class:`Table`.

    """
    listed = [[cell(row) for cell in cells.values()] for row in rows]
    notes: list[str] = []
    if NOTE in cells:
        at = list(cells).index(NOTE)
        notes = list(dict.fromkeys(row[at] for row in listed if row[at]))
        for row in listed:
            row[at] = str(notes.index(row[at]) + 1) if row[at] else ""
    return Table(caption, list(cells), listed, words, title, notes)


def per_score(
    table: pd.DataFrame, cells: Cells, caption: str, *, words: Sequence[str], title: str
) -> list[Table]:
    """Make a folded table for each score and metric; its title is the score and `title`."""
    return [
        tabulate(
            own.to_dict("records"),
            cells,
            caption,
            words=words,
            title=f"{capitalized(named(own.iloc[0]))}: {title} ({len(own)})",
        )
        for _, own in table.groupby(["score", "metric"])
    ]


def plain(name: str) -> Callable[[Row], str]:
    """Return a cell that shows a value as it is."""
    return lambda row: str(row[name])


def shown(name: str, write: Callable[[Any], str]) -> Callable[[Row], str]:
    """Return a cell that shows a value, written by a function of `wording`."""
    return lambda row: write(row[name])


def with_interval(name: str, decimals: int = 2) -> Callable[[Row], str]:
    """Return a cell with a number and its interval, `name`, `name_low` and `name_high`."""

    def cell(row: Row) -> str:
        reach = interval(row[f"{name}_low"], row[f"{name}_high"])
        return f"{number(row[name], decimals)} {reach}".removesuffix(f" {MISSING}")

    return cell


def predictor(row: Row) -> str:
    """Return the label of a row's predictor."""
    name = str(row["predictor"])
    return LABELS.get(name, name)


def named(row: Row | pd.Series) -> str:
    """Return the name of a row's score and metric."""
    return words(f"{row['score']} {row['metric']}")


def capitalized(text: str) -> str:
    """Return a text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def text_of(value: Any) -> str:
    """Return a value as text, a dash if it is missing."""
    return MISSING if value is None or pd.isna(value) or value == "" else str(value)
