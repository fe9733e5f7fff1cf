"""The tables of docs/models.md."""

import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@cache
def listed(title: str) -> dict[str, tuple[int, list[str]]]:
    """The table under a heading: what happens → how many, and which kinds."""
    text = PAGE.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^#+ {title}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[1].isdigit():
            found[cells[0]] = (int(cells[1]), re.findall(r"`([^`]+)`", cells[2]))
    return found
