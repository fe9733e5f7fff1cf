"""What a report says of the models of one kind: those of texts, or those of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from blockcoupling.catalog.modality import NAMES
from blockcoupling.config.choices import Modality
from blockcoupling.lab.ablation.report import damaged
from blockcoupling.lab.intervention.report import experiment
from blockcoupling.report.alike import pooled_and_within
from blockcoupling.report.correlated import compared, comparisons, findings, predicted
from blockcoupling.report.material import models, prompts
from blockcoupling.report.measured import measurements
from blockcoupling.report.pictures import Picture, pictures
from blockcoupling.report.reading import how_to_read
from blockcoupling.report.spread import variance
from blockcoupling.report.table import Table
from blockcoupling.statistics.scores import read_scores
from blockcoupling.wording import words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_WHERE = {"text": "at the last token of each prompt", "image": "at one token of each image"}


@dataclass(frozen=True)
class Part:
    """The models of one kind, measured, drawn and held against their scores by themselves.

    Attributes:
        name: what they are called; empty where a study has no others.
        suffix: of the section's anchors.
        where: at which token they were measured, in words.
        settings: which coupling is told.
        points, ends, correlation: the tables that the rest is taken from.
    """

    name: str
    suffix: str
    where: str
    settings: str
    measured: Table
    measured_all: Table | None
    figures: list[Picture]
    reading: list[str]
    findings: list[str]
    compared: list[Table]
    tables: list[Table]
    damage: Any
    experiment: Any
    variance: Table
    models: Table
    prompts: Table
    points: pd.DataFrame
    ends: pd.DataFrame
    correlation: pd.DataFrame

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Anchors and names of its sections."""
        found = [("measurements", "Measurements"), ("figures", "Figures")]
        found += [("correlation", "Correlation")]
        found += [("damage", "Damage")] if self.damage else []
        found += [("experiment", "Experiment")] if self.experiment else []
        found += [("variance", "Spread"), ("study", "Models and prompts")]
        of = f" of {self.name}" if self.name else ""
        return [(f"{anchor}{self.suffix}", f"{title}{of}") for anchor, title in found]

    def heading(self, title: str) -> str:
        """A section's heading, with what it is about where a study has other models too."""
        return f"{self.name[0].upper()}{self.name[1:]}: {title}" if self.name else title


def part_of(catalog: Catalog, modality: Modality, several: bool) -> Part:
    """What is said of the models of a catalog, which all take the same.

    Args:
        catalog: their entries; see `report.page.write_report`.
        modality: what they take.
        several: whether the study has other models, too.
    """
    points = catalog.one(kind="predictors").read()
    correlation = catalog.one(kind="correlation").read()
    prediction = catalog.one(kind="prediction").read()
    within = catalog.one(kind="within").read()
    within = within[within["headline"]]
    scores = read_scores(catalog)
    k, variant = points["k"].iloc[0], points["variant"].iloc[0]
    points = points.sort_values(["parameters", "model", "step"])
    ends = points[points["untrained"] | points["final"]]
    shown = correlation[correlation["headline"]]
    main = shown[shown["subset_kind"] == "checkpoints"]
    return Part(
        name=NAMES[modality] if several else "",
        suffix=f"-{modality}" if several else "",
        where=_WHERE[modality],
        settings=f"variant {words(variant)}, K = {k}",
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
        tables=[
            *pooled_and_within(within),
            *predicted(prediction[prediction["headline"]]),
            *comparisons(shown),
        ],
        damage=damaged(catalog) if modality == "text" else None,
        experiment=experiment(catalog) if modality == "text" else None,
        variance=variance(catalog.one(kind="variance").read()),
        models=models(catalog),
        prompts=prompts(catalog),
        points=points,
        ends=ends,
        correlation=correlation,
    )
