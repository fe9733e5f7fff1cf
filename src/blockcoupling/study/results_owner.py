"""The study that a directory of results belongs to: one directory, one study.

Statistics, figures and the report have no name of a study in their paths: a second study with the
same `results` would write over them.
"""

import json
from pathlib import Path
from typing import Any

from blockcoupling.atomic import replacing
from blockcoupling.catalog.plain import relative
from blockcoupling.config.study import Study

FILE = "study.json"
"""In the results: the study's name, and its catalog, seen from the results."""


def occupied(study: Study) -> str | None:
    """Why a study may not write into its results: they are another's. None if it may."""
    found = _read(study.results)
    if found is None:
        return None
    catalog = (study.results / found["catalog"]).resolve()
    same = found["study"] == study.study
    if same and (catalog == study.catalog.resolve() or not catalog.exists()):
        return None
    here = Path.cwd()
    shown = catalog.relative_to(here) if catalog.is_relative_to(here) else catalog
    return (
        f"{study.results} has the results of the study {found['study']!r}, whose catalog is "
        f"{shown}: name another directory as `results`, or, if they are this study's, remove "
        f"{study.results / FILE}"
    )


def claim(study: Study) -> None:
    """Write down whose results these are.

    Raises:
        UserError: The results cannot be written.
    """
    owner = {"study": study.study, "catalog": relative(study.catalog, study.results)}
    if _read(study.results) != owner:
        with replacing(study.results / FILE) as fresh:
            fresh.write_text(json.dumps(owner) + "\n")


def _read(results: Path) -> dict[str, str] | None:
    try:
        found: Any = json.loads((results / FILE).read_bytes())
        return {name: str(found[name]) for name in ("study", "catalog")}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or broken: it is written again
