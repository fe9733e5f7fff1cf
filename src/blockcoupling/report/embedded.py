"""The figures of a study in the report."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockcoupling.errors import UserError
from blockcoupling.figures import FIGURES
from blockcoupling.report.part import Part
from blockcoupling.report.section import Section
from blockcoupling.wording import words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


SHOWN = 6
"""Figures that are not folded: the first of the table."""

_PNG = b"\x89PNG\r\n\x1a\n"
_WIDE = 640


@dataclass(frozen=True)
class Embedded:
    """A figure as a data URI, with its size in CSS pixels if the file says so."""

    name: str
    title: str
    caption: str
    source: str
    width: int | None = None
    height: int | None = None

    @property
    def wide(self) -> bool:
        """Whether it needs the width of two figures."""
        return self.width is None or self.width > _WIDE


def section(part: Part) -> Section:
    """Return the figures, all but the first few folded."""
    found = embedded(part.catalog)
    return Section("Figures", figures=found[:SHOWN], more_figures=found[SHOWN:])


def embedded(catalog: Catalog) -> list[Embedded]:
    """Return the figures of the catalog, in the order of :data:`blockcoupling.figures.FIGURES`.

    Raises:
        UserError: no figure is a png or svg.

    """
    usable = catalog.search(kind="figure")
    usable = usable.search(format=["png", "svg"]) if len(usable) else usable
    found = {str(usable[name].metadata["figure"]) for name in usable}
    if not found:
        raise UserError("the report needs figures as png or svg: add one to figures.formats")
    order = [*(name for name in FIGURES if name in found), *sorted(found - FIGURES.keys())]
    return [_embed(usable, name) for name in order]


def _embed(catalog: Catalog, name: str) -> Embedded:
    formats = catalog.search(figure=name)
    entry = next(iter(formats.search(format="png")), None) or next(iter(formats))
    content: bytes = catalog[entry].read()
    described = FIGURES.get(name)
    title = described.title if described else words(name)
    caption = described.caption if described else ""
    if catalog[entry].metadata["format"] == "svg":
        return Embedded(name, title, caption, _data_uri("image/svg+xml", content))
    if not content.startswith(_PNG) or len(content) < 24:
        raise UserError(f"{entry}: {catalog.path(entry)} is damaged (not a PNG); draw it again")
    # Width and height are in the header of a PNG. Drawn at 200 dots per inch, shown at 100.
    width, height = struct.unpack(">II", content[16:24])
    source = _data_uri("image/png", content)
    return Embedded(name, title, caption, source, width // 2, height // 2)


def _data_uri(media: str, content: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"
