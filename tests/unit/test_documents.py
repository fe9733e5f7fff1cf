"""The documents name what the code has: figures, kinds of entries, columns of the statistics."""

import re
from pathlib import Path

import pytest

from blockcoupling.catalog import KINDS
from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.config.variants import DEFAULT_VARIANT, VARIANTS
from blockcoupling.figures import FIGURES
from blockcoupling.statistics.costs import COLUMNS, counted
from blockcoupling.statistics.predictors import MEASURES

ROOT = Path(__file__).parents[2]


def rows(document: str, heading: str) -> list[list[str]]:
    """Return the first table after a heading, row by row."""
    text = (ROOT / document).read_text(encoding="utf-8").split(f"{heading}\n", 1)[1]
    lines = re.search(r"^\|.*?(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE).group().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cells: list[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]


def test_every_figure_is_listed_in_order():
    assert quoted([row[0] for row in rows("docs/figures.md", "# Figures")]) == list(FIGURES)


def test_figures_read_kinds_that_there_are():
    listed = rows("docs/figures.md", "# Figures")
    assert set(quoted([row[2] for row in listed])) <= set(KINDS)


def test_every_kind_of_entry_is_listed():
    listed = rows("catalog/README.md", "## What is in it")
    assert [[cell.strip("`") for cell in row] for row in listed] == [
        [name, kind.holds, kind.made_by] for name, kind in KINDS.items()
    ]


def test_every_variant_is_defined_as_the_table_has_it():
    listed = rows("docs/definitions.md", "## Coupling")
    assert listed == [
        [f"`{name}`" + " (default)" * (name == DEFAULT_VARIANT), each.formula, each.source]
        for name, each in VARIANTS.items()
    ]


def test_every_overlap_is_defined_as_the_table_has_it():
    listed = rows("docs/definitions.md", "### Overlaps")
    assert listed == [[f"`{name}`", each.formula, each.asks] for name, each in OVERLAPS.items()]


def test_the_guide_names_every_variant_a_study_can_have():
    (row,) = [
        row
        for row in rows("docs/adding-models.md", "## What is measured")
        if row[0] == "`reduce.variants`"
    ]
    assert row[2] == ", ".join(VARIANTS)


@pytest.mark.parametrize(
    ("kind", "heading"),
    [
        ("predictors", "## Points: `predictors.parquet`"),
        ("correlation", "## Each predictor against each score: `correlation.parquet`"),
        ("correlation_by_k", "## Every K and variant: `correlation_by_k.parquet`"),
        ("prediction", "## Scores of unseen models: `prediction.parquet`"),
        ("variance", "## Where the spread comes from: `variance.parquet`"),
    ],
)
def test_every_column_of_the_statistics_is_described(analysed, kind, heading):
    described = {
        name
        for row in rows("docs/statistics.md", heading)
        for name in re.findall(r"`([a-z_0-9]+)`", row[0])
    }
    found = set(analysed.one(kind=kind).read().columns)
    if kind == "predictors":  # described by their pattern
        described -= {"_se"}
        found -= {f"{measure}_se" for measure in MEASURES} | {"heldout.loss", "heldout.accuracy"}
    assert described == found


def test_every_column_of_the_costs_is_described():
    listed = rows("docs/schema.md", "## What the jobs took: `costs.parquet`")
    assert quoted([row[0] for row in listed]) == list(COLUMNS)
    assert listed[0][1].removeprefix("the step: ").split(", ") == [step.name for step in counted()]
