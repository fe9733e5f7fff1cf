"""The models of one modality, as the sections of the report read them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.catalog.modality import NAMES
from blockcoupling.config.choices import Modality
from blockcoupling.report.section import SECTIONS, Section
from blockcoupling.statistics.scores import read_scores

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


@dataclass(frozen=True)
class Part:
    """What is known of the models of one modality.

    Attributes:
        catalog: their entries.
        modality: what they take.
        points: one row per checkpoint, the smallest model first.
        ends: the untrained and final ones of `points`.
        scores: one row per checkpoint, score and metric.
        main: rows of the correlation table about the headline scores and choices of checkpoints.
        correlation: rows about the headline scores, those of single models included.
        within: rows of the table of slopes within groups, about the headline scores.
        prediction: rows about the headline scores.
        k: number of singular vectors that the statistics use.
        variant: mis-coupling that the statistics use.
    """

    catalog: Catalog
    modality: Modality
    points: pd.DataFrame
    ends: pd.DataFrame
    scores: pd.DataFrame
    main: pd.DataFrame
    correlation: pd.DataFrame
    within: pd.DataFrame
    prediction: pd.DataFrame
    k: int
    variant: str

    @property
    def name(self) -> str:
        """What the models are called."""
        return NAMES[self.modality]

    def sections(self) -> dict[str, Section]:
        """Return the sections by their anchors, those that are folded last."""
        found = {}
        for anchor, place in SECTIONS.items():
            module, function = place.split(":")
            section = getattr(import_module(module), function)(self)
            if section is not None:
                found[anchor] = section
        return dict(sorted(found.items(), key=lambda item: item[1].folded))


def part_of(catalog: Catalog, modality: Modality) -> Part:
    """Read the statistics of the models of one modality.

    Args:
        catalog: entries about these models only; see `report.page.write_report`.
        modality: what they take.

    """
    points = catalog.one(kind="predictors").read()
    points = points.sort_values(["parameters", "model", "step"])
    tables = {kind: catalog.one(kind=kind).read() for kind in ("correlation", "within")}
    tables["prediction"] = catalog.one(kind="prediction").read()
    headline = {kind: table[table["headline"]] for kind, table in tables.items()}
    of_checkpoints = headline["correlation"]["subset_kind"] == "checkpoints"
    return Part(
        catalog,
        modality,
        points=points,
        ends=points[points["untrained"] | points["final"]],
        scores=read_scores(catalog),
        main=headline["correlation"][of_checkpoints],
        k=int(points["k"].iloc[0]),
        variant=str(points["variant"].iloc[0]),
        **headline,
    )
