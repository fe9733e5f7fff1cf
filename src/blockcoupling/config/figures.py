"""Section `figures`: how figures are written."""

from typing import Literal

from pydantic import Field

from blockcoupling.config.section import Section


class Figures(Section):
    """How figures are written."""

    formats: list[Literal["pdf", "png", "svg"]] = Field(default=["pdf", "png"], min_length=1)
    """Formats of the files."""
