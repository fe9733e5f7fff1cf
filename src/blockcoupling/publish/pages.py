"""The pages of a published study for people: README.md (a dataset card) and CITATION.cff."""

from __future__ import annotations

from collections.abc import Sequence

from blockcoupling.catalog.plain import as_yaml
from blockcoupling.publish.about import PAPER, About
from blockcoupling.publish.tables import Table


def readme(about: About, tables: Sequence[Table], facts: str) -> str:
    """Return README.md with the YAML header that the Hugging Face hub and `datasets` read.

    Args:
        about: who publishes.
        tables: all tables.
        facts: what was measured, as a sentence.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    first = min(tables, key=lambda each: each.name != "coupling").name if tables else ""
    header = {
        "pretty_name": about.title,
        "license": about.license.lower(),
        "tags": ["interpretability", "transformers", "jacobian", "blockcoupling"],
        "configs": [
            {"config_name": each.name, "data_files": each.path, "default": each.name == first}
            for each in tables
        ],
    }
    loader = PackageLoader("blockcoupling.publish")
    pages = Environment(
        loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    return pages.get_template("README.md.j2").render(
        about=about,
        tables=tables,
        facts=facts,
        header=as_yaml(header),
        example=first,
        paper=PAPER["url"],
    )


def citation(about: About) -> str:
    """Return CITATION.cff."""
    return as_yaml(
        {
            "cff-version": "1.2.0",
            "message": "If you use this dataset, please cite it and the paper.",
            "type": "dataset",
            "title": about.title,
            "authors": [{"name": name} for name in about.authors],
            "date-released": about.date,
            "license": about.license,
            "references": [PAPER],
        }
    )
