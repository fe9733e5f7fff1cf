"""Mis-coupling against the distance between blocks, at several stages of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from blockcoupling.figures.data import NothingToShow, at_last, settings
from blockcoupling.figures.style import (
    Look,
    band,
    counted,
    keys,
    legend_below,
    panels,
    scale,
    styled,
)
from blockcoupling.statistics.points import CHECKPOINT, checkpoint_facts, mean_over_prompts
from blockcoupling.wording import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_MOST_LINES = 6
_WIDEST = 4


def from_catalog(catalog: Catalog, *, k: int | None = None, variant: str | None = None) -> Figure:
    """Draw the figure from the entries of the kinds model, locality and trajectory."""
    chosen = settings(catalog, k, variant)
    measured = catalog.search(kind="locality").facets().get("model", [])
    facts = checkpoint_facts(catalog)
    facts = facts[facts["model"].isin(measured)].sort_values(["parameters", "model", "step"])
    if facts.empty:
        raise NothingToShow("No model of this study was measured.")
    facts = pd.concat([_some(own) for _, own in facts.groupby("model", sort=False)])
    table = at_last(
        catalog,
        "locality",
        list(facts[CHECKPOINT].itertuples(index=False, name=None)),
        filters=[("k", "==", chosen.k), ("variant", "==", chosen.variant)],
    )
    means = mean_over_prompts(table, [*CHECKPOINT, "distance"], ["miscoupling"])
    return draw(facts[[*CHECKPOINT, "step"]].merge(means, on=CHECKPOINT, how="left"), *chosen)


def _some(own: pd.DataFrame) -> pd.DataFrame:
    """Pick the first, the last and evenly many between."""
    wanted = np.linspace(0, len(own) - 1, min(_MOST_LINES, len(own))).round().astype(int)
    return own.iloc[np.unique(wanted)]


@styled
def draw(means: pd.DataFrame, k: int, variant: str) -> Figure:
    """Draw one panel per model and one line per checkpoint.

    Args:
        means: model, checkpoint, step, distance, miscoupling, miscoupling_se.
        k: how many singular vectors they are of.
        variant: which mis-coupling.

    """
    models = list(means["model"].unique())
    columns = min(_WIDEST, len(models))
    stages = means.sort_values(["step", "checkpoint"])["checkpoint"].drop_duplicates().tolist()
    look = {name: Look(c, "o") for name, c in zip(stages, scale(len(stages)), strict=True)}
    figure, axes = panels(-(-len(models) // columns), columns, size=(2.4, 2.2), sharey=True)
    for own, model in zip(axes.flat, models, strict=False):
        part = means[means["model"] == model]
        for checkpoint, line in part.groupby("checkpoint"):
            band(
                own,
                line["distance"],
                line["miscoupling"],
                line["miscoupling_se"],
                look[str(checkpoint)],
            )
        own.set_title(model)
        own.set_xlabel("distance between blocks |i − j|")
        own.set_xticks(counted(int(part["distance"].max())))
    for own in axes.flat[len(models) :]:
        own.set_axis_off()
    for own in axes[:, 0]:
        own.set_ylabel(f"mis-coupling\n({words(variant)}, K = {k})")
    legend_below(figure, keys(look))
    return figure
