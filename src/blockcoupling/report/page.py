"""One HTML file that shows a whole study: tables, figures, statistics, where they came from.

Pictures and style are inside the file; it fetches nothing and can be mailed or archived as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import blockcoupling
from blockcoupling.atomic import replacing
from blockcoupling.catalog.modality import MODALITIES, modalities, of_modality
from blockcoupling.report.material import score_sources
from blockcoupling.report.part import part_of
from blockcoupling.report.provenance import attributes, provenance, snippet, stores
from blockcoupling.report.spread import costs
from blockcoupling.statistics.scores import read_scores

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


def write_report(
    catalog: Catalog,
    out: str | Path,
    *,
    title: str = "Block coupling",
    catalog_path: str = "catalog/catalog.yml",
) -> None:
    """Write the report of a study.

    Args:
        catalog: has entries of the kinds model, prompts, score, coupling, trajectory, predictors,
            correlation, prediction, within, variance, figure (png or svg), and svd; costs are shown
            if there are any.
        out: the HTML file.
        title: its heading.
        catalog_path: what the loading example opens.

    Raises:
        UserError: an entry is missing from the catalog.

    """
    html = render(catalog, title=title, catalog_path=catalog_path)
    with replacing(out) as fresh:
        fresh.write_text(html, encoding="utf-8")


def render(
    catalog: Catalog,
    *,
    title: str = "Block coupling",
    catalog_path: str = "catalog/catalog.yml",
) -> str:
    """Return the report as text; the same catalog makes the same text. See :func:`write_report`."""
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
        part_of(of_modality(catalog, each) if several else catalog, each, several)
        for each in taken or MODALITIES[:1]
    ]
    points = pd.concat([part.points for part in parts], ignore_index=True)
    measured = attributes(catalog, points)
    scores = read_scores(catalog)
    overview = [
        ("models", str(points["model"].nunique())),
        ("checkpoints", str(len(points))),
        ("datasets", str(len(catalog.search(kind="prompts")))),
        ("prompts per checkpoint", _range(points["prompts"])),
        ("artifacts in the catalog", str(len(catalog))),
    ]
    first = parts[0]
    return environment.get_template("report.html.j2").render(
        title=title,
        version=blockcoupling.__version__,
        overview=overview,
        parts=parts,
        contents=[line for part in parts for line in part.contents],
        costs=costs(catalog),
        provenance=provenance(measured, catalog, first.correlation),
        stores=stores(measured),
        scores=score_sources(scores),
        snippet=snippet(catalog, first.ends.iloc[-1], catalog_path, taken[0] if several else None),
    )


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
