"""Image models by factors of their training: stochastic depth and weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.style import Look, keys, legend_below, looks, panels, styled
from blockcoupling.lab.populations.effects import Effect, effect
from blockcoupling.statistics.factors import PREFIX
from blockcoupling.statistics.points import CHECKPOINT
from blockcoupling.statistics.predictors import MEASURES
from blockcoupling.statistics.scores import read_scores
from blockcoupling.wording import interval, number, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

RATE, DECAY, SEED = (f"{PREFIX}{name}" for name in ("stochastic_depth", "weight_decay", "seed"))
_NAMES = {RATE: "stochastic depth", DECAY: "weight decay"}
_SHOWN = ("coupling", "line_shape_score", "expodistance")


def _members(catalog: Catalog, factor: str) -> tuple[pd.DataFrame, str]:
    """Return the final checkpoints of models that have a factor, and the name of the score."""
    table = catalog.one(kind="predictors").read()
    if factor not in table or table[factor].nunique() < 2:
        raise NothingToShow(f"No models of this study differ in {_NAMES[factor]}.")
    correlation = catalog.one(kind="correlation").read(columns=["score", "metric", "headline"])
    named = correlation.loc[correlation["headline"], ["score", "metric"]].drop_duplicates()
    if named.empty:
        raise NothingToShow("No checkpoint of this study has a score.")
    scores = read_scores(catalog).merge(named.head(1), on=["score", "metric"])
    final = table[table["final"] & table[factor].notna()]
    members = final.merge(scores[[*CHECKPOINT, "value", "standard_error"]], on=CHECKPOINT)
    if members.empty:
        raise NothingToShow("No model with this factor has a score.")
    return members, words(f"{named.iloc[0]['score']} {named.iloc[0]['metric']}")


@styled
def score_by_factor(catalog: Catalog, factor: str) -> Figure:
    """Draw coupling against the score, coloured by a factor of the models' training.

    A point a model, and a line for each value of the factor with three models or more.
    """
    factor = f"{PREFIX}{factor}"
    table, label = _members(catalog, factor)
    groups = _look(table, factor)
    figure, axes = panels(1, 1, size=(4.2, 3.2))
    own = axes[0, 0]
    for (_, part), look in zip(table.groupby(factor), groups.values(), strict=True):
        own.errorbar(
            part["coupling"],
            part["value"],
            xerr=part["coupling_se"].astype(float),
            yerr=part["standard_error"].astype(float),
            fmt=look.marker,
            color=look.color,
            mec="white",
            mew=0.4,
            ms=5,
            elinewidth=0.7,
        )
        if len(part) >= 3 and part["coupling"].nunique() > 1:
            slope, start = np.polyfit(part["coupling"], part["value"], 1)
            x = np.array([part["coupling"].min(), part["coupling"].max()])
            own.plot(x, start + slope * x, color=look.color, lw=1, ls="--")
    own.set_xlabel(_axis("coupling", table))
    own.set_ylabel(label)
    found = effect(table, "coupling", "value", [factor])
    own.set_title(f"at fixed {_NAMES[factor]}: slope {_slope(found)}, n = {found.n}")
    legend_below(figure, keys(groups, line=False))
    return figure


@styled
def effect_of_rate(catalog: Catalog) -> Figure:
    """Draw coupling, regularity and score against the rate of stochastic depth.

    With the mean of each rate and its interval.
    """
    table, label = _members(catalog, RATE)
    held = [c for c in (DECAY, SEED) if c in table and table[c].nunique() > 1]
    measures = {name: _axis(name, table) for name in _SHOWN} | {"value": label}
    figure, axes = panels(2, 2, size=(3.0, 2.4))
    look = looks(["model"])["model"]
    for own, (measure, name) in zip(axes.flat, measures.items(), strict=True):
        own.plot(table[RATE], table[measure], look.marker, color="#999999", ms=3.5, alpha=0.7)
        _means(own, table, measure, look)
        own.set_ylabel(name)
        own.set_title(f"slope {_slope(effect(table, RATE, measure, held))}")
    for own in axes[-1]:
        own.set_xlabel("stochastic depth of the last block")
    return figure


def _means(axes: Axes, table: pd.DataFrame, measure: str, look: Look) -> None:
    """Draw the mean of each rate with a 95 % interval over its models."""
    from scipy.stats import t

    groups = table.groupby(RATE)[measure]
    mean, error, count = groups.mean(), groups.sem(), groups.count()
    reach = error * t.ppf(0.975, (count - 1).clip(lower=1))
    axes.errorbar(
        mean.index, mean, yerr=reach.fillna(0), fmt=f"{look.marker}-", color=look.color,
        mec="white", mew=0.4, ms=5, lw=1, capsize=2,
    )  # fmt: skip


def _axis(measure: str, table: pd.DataFrame) -> str:
    if measure == "coupling":
        return f"coupling −⟨m⟩ (K = {table['k'].iloc[0]})"
    return MEASURES[measure]


def _slope(found: Effect) -> str:
    if not np.isfinite(found.slope):
        return "unknown"
    reach = f" {interval(found.low, found.high)}" if np.isfinite(found.low) else ""
    return f"{number(found.slope)}{reach}"


def _look(table: pd.DataFrame, factor: str) -> dict[str, Look]:
    values = sorted(table[factor].unique())
    return looks(f"{_NAMES[factor]} {value:g}" for value in values)
