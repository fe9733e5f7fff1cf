"""One HTML file that shows a whole study: the answer, figures, tables, provenance.

Figures and style are inside the file; it fetches nothing and can be mailed or archived as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import blockcoupling
from blockcoupling.atomic import replacing
from blockcoupling.catalog.mixed import mixed
from blockcoupling.catalog.modality import MODALITIES, modalities, of_modality
from blockcoupling.report.answer import Line, answer, findings
from blockcoupling.report.material import score_sources
from blockcoupling.report.part import Part, part_of
from blockcoupling.report.provenance import attributes, provenance, snippet, stores
from blockcoupling.report.section import Section
from blockcoupling.report.spread import costs
from blockcoupling.report.table import capitalized
from blockcoupling.statistics.scores import read_scores

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

FINDINGS = "findings.txt"
"""The file next to the report that has its most important lines."""


def write_report(
    catalog: Catalog,
    out: str | Path,
    *,
    title: str = "Block coupling",
    catalog_path: str = "catalog/catalog.yml",
    explorer: str | None = None,
) -> None:
    """Write the report of a study, and next to it :data:`FINDINGS`, three lines of plain text.

    Args:
        catalog: has entries of the kinds model, prompts, score, coupling, locality, trajectory,
            predictors, correlation, prediction, within, variance, figure (png or svg), and svd;
            costs are shown if there are any.
        out: the HTML file.
        title: its heading.
        catalog_path: what the loading example opens.
        explorer: link to the exported explorer, relative to the report.

    Raises:
        UserError: an entry is missing from the catalog.

    """
    html, lines = _rendered(catalog, title, catalog_path, explorer)
    for path, text in ((Path(out), html), (Path(out).with_name(FINDINGS), findings(lines))):
        with replacing(path) as fresh:
            fresh.write_text(text, encoding="utf-8")


def render(
    catalog: Catalog,
    *,
    title: str = "Block coupling",
    catalog_path: str = "catalog/catalog.yml",
) -> str:
    """Return the report as text; the same catalog makes the same text. See :func:`write_report`."""
    return _rendered(catalog, title, catalog_path)[0]


def _rendered(
    catalog: Catalog, title: str, catalog_path: str, explorer: str | None = None
) -> tuple[str, list[Line]]:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("blockcoupling.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    taken = modalities(catalog)
    several = len(taken) > 1
    parts = [
        part_of(of_modality(catalog, each) if several else catalog, each)
        for each in taken or MODALITIES[:1]
    ]
    sections = _sections(parts)
    found = [each for own in sections.values() for each in own.values()]
    lines = answer(parts, [each.headline for each in found if each.headline])
    points = pd.concat([part.points for part in parts], ignore_index=True)
    measured = attributes(catalog, points)
    last = parts[0].ends.iloc[-1]
    html = environment.get_template("report.html.j2").render(
        title=title,
        version=blockcoupling.__version__,
        answer=lines,
        explorer=explorer,
        sections=sections,
        costs=costs(catalog),
        provenance=provenance(measured, catalog, parts[0].correlation),
        mixed=mixed(catalog),
        stores=stores(measured),
        scores=score_sources(read_scores(catalog)),
        snippet=snippet(catalog, last, catalog_path, taken[0] if several else None),
    )
    return html, lines


def _sections(parts: Sequence[Part]) -> dict[str, dict[str, Section]]:
    """Return the sections by anchor, for each part by its name, which is empty if it is alone."""
    if len(parts) == 1:
        return {"": parts[0].sections()}
    return {
        capitalized(part.name): {
            f"{anchor}-{part.modality}": section for anchor, section in part.sections().items()
        }
        for part in parts
    }
