"""The figures of a study as they stand in the page."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockcoupling.errors import UserError
from blockcoupling.figures import FIGURES
from blockcoupling.wording import words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A figure as a data URI, with its size in CSS pixels where the format tells it."""

    name: str
    title: str
    caption: str
    source: str
    width: int | None = None
    height: int | None = None


def pictures(catalog: Catalog) -> list[Picture]:
    """Return the figures of the catalog, in the order of :data:`blockcoupling.figures.FIGURES`.

    Raises:
        UserError: there is none as png or svg.

    """
    usable = catalog.search(kind="figure")
    usable = usable.search(format=["png", "svg"]) if len(usable) else usable
    found = {str(usable[name].metadata["figure"]) for name in usable}
    if not found:
        raise UserError("the report needs figures as png or svg (figures.formats), and has none")
    order = [*(name for name in FIGURES if name in found), *sorted(found - FIGURES.keys())]
    return [_picture(usable, name) for name in order]


def _picture(catalog: Catalog, name: str) -> Picture:
    formats = catalog.search(figure=name)
    entry = next(iter(formats.search(format="png")), None) or next(iter(formats))
    content: bytes = catalog[entry].read()
    described = FIGURES.get(name)
    title = described.title if described else words(name)
    caption = described.caption if described else ""
    if catalog[entry].metadata["format"] == "svg":
        return Picture(name, title, caption, _data_uri("image/svg+xml", content))
    if not content.startswith(_PNG) or len(content) < 24:
        raise UserError(f"{entry} is no PNG: {catalog.path(entry)} is damaged; draw it again")
    # PNG: width and height stand in the header. Drawn at 200 dots per inch, shown at about 100.
    width, height = struct.unpack(">II", content[16:24])
    source = _data_uri("image/png", content)
    return Picture(name, title, caption, source, width // 2, height // 2)


def _data_uri(media: str, content: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"
