"""One HTML file that shows a whole study: tables, figures, statistics, where they came from.

Pictures and style are inside the file; it fetches nothing and can be mailed or archived as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import blockcoupling
from blockcoupling.atomic import replacing
from blockcoupling.report.alike import pooled_and_within
from blockcoupling.report.correlated import compared, comparisons, findings, predicted
from blockcoupling.report.damage import damaged
from blockcoupling.report.experiment import experiment
from blockcoupling.report.material import models, prompts, score_sources
from blockcoupling.report.measured import measurements
from blockcoupling.report.pictures import pictures
from blockcoupling.report.provenance import attributes, provenance, snippet, stores
from blockcoupling.report.reading import how_to_read
from blockcoupling.report.spread import costs, variance
from blockcoupling.report.table import words
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
    points = catalog.one(kind="predictors").read()
    correlation = catalog.one(kind="correlation").read()
    prediction = catalog.one(kind="prediction").read()
    within = catalog.one(kind="within").read()
    within = within[within["headline"]]
    scores = read_scores(catalog)
    k, variant = points["k"].iloc[0], points["variant"].iloc[0]
    points = points.sort_values(["parameters", "model", "step"])
    ends = points[points["untrained"] | points["final"]]
    measured = attributes(catalog, points)
    overview = [
        ("models", str(points["model"].nunique())),
        ("checkpoints", str(len(points))),
        ("datasets", str(len(catalog.search(kind="prompts")))),
        ("prompts per checkpoint", _range(points["prompts"])),
        ("artifacts in the catalog", str(len(catalog))),
    ]
    shown = correlation[correlation["headline"]]
    main = shown[shown["subset_kind"] == "checkpoints"]
    return environment.get_template("report.html.j2").render(
        title=title,
        version=blockcoupling.__version__,
        settings=f"variant {words(variant)}, K = {k}",
        overview=overview,
        measured=measurements(ends, scores, "Untrained and final checkpoints"),
        measured_all=(
            measurements(points, scores, f"All {len(points)} checkpoints")
            if len(points) > len(ends)
            else None
        ),
        figures=pictures(catalog),
        reading=how_to_read(catalog, points, main, within, int(k), str(variant)),
        findings=findings(main),
        compared=compared(main),
        correlation=[
            *pooled_and_within(within),
            *predicted(prediction[prediction["headline"]]),
            *comparisons(shown),
        ],
        damage=damaged(catalog),
        experiment=experiment(catalog),
        variance=variance(catalog.one(kind="variance").read()),
        costs=costs(catalog),
        models=models(catalog),
        prompts=prompts(catalog),
        provenance=provenance(measured, catalog, correlation),
        stores=stores(measured),
        scores=score_sources(scores),
        snippet=snippet(catalog, ends.iloc[-1], catalog_path),
    )


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
