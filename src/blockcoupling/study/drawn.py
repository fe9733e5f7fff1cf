"""The lists of figures that were drawn.

Which figures a study has depends on its numbers, so the workflow knows them by a list of what was
drawn. A list that names a file which is missing is not true any more.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from blockcoupling.config.steps import step
from blockcoupling.config.study import Study


def drawn(listed: Path) -> list[str]:
    """File names of the figures that a list names; none if there is no list."""
    if not listed.is_file():
        return []
    figures = json.loads(listed.read_text(encoding="utf-8"))["figures"]
    return [name for files in figures.values() for name in files]


def untrue_lists(study: Study) -> Iterator[Path]:
    """Yield each list that names a figure whose file or entry is missing."""
    row = step("figures")
    for wildcards in row.wildcards(study):
        listed = study.results / row.files[0].format(**wildcards)
        entries = study.results / row.entry_directory.format(**wildcards)
        for name in drawn(listed):
            if not (
                (listed.with_suffix("") / name).is_file() and (entries / f"{name}.yml").is_file()
            ):
                yield listed
                break
