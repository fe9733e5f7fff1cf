"""Tables of text, and how values become text in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from blockcoupling.wording import MISSING


@dataclass(frozen=True)
class Table:
    """Text, ready to be set as a table; `words` names the columns that are not numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = field(default=())
    title: str = ""


def said(value: Any) -> str:
    """Return a value as text, a dash where there is none."""
    return MISSING if value is None or pd.isna(value) or value == "" else str(value)
