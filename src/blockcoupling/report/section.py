"""What a section of the report holds, and the table of sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockcoupling.report.embedded import Embedded
    from blockcoupling.report.table import Table


@dataclass(frozen=True)
class Section:
    """A section about the models of one modality.

    Attributes:
        title: heading.
        lead: a paragraph below it.
        sentences: what was found; the first few are shown, the others folded.
        figures: shown two abreast.
        more_figures: figures that are folded.
        tables: those with a title are folded.
        folded: whether the whole section is.
        headline: what the answer at the top says of it, if anything.
    """

    title: str
    lead: str = ""
    sentences: Sequence[str] = ()
    figures: Sequence[Embedded] = ()
    more_figures: Sequence[Embedded] = ()
    tables: Sequence[Table] = ()
    folded: bool = False
    headline: str = ""


_HERE = "blockcoupling.report"

SECTIONS: dict[str, str] = {
    "measurements": f"{_HERE}.measured:section",
    "figures": f"{_HERE}.embedded:section",
    "correlation": f"{_HERE}.correlated:section",
    "variance": f"{_HERE}.spread:section",
    "study": f"{_HERE}.material:section",
}
"""Anchor of each section → `module:function`, which takes a `Part` and returns a :class:`Section`,
or None if there is nothing to say. The laboratory adds its own (`blockcoupling.lab.join`)."""
