"""Effects of setting coupling: outcomes against the coupling reached, and arm by arm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.style import FAINT, Look, keys, legend_below, looks, panels, styled
from blockcoupling.lab.intervention.arms import (
    COUPLING,
    DAMAGE,
    LOSS,
    TOKENS,
    TRAINING,
    headline,
    label,
    outcomes,
)
from blockcoupling.lab.intervention.statistics import DIFFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_COLUMNS = 3


class _Experiment(NamedTuple):
    """The content of a figure about an experiment: rows about all pairs together."""

    arms: pd.DataFrame
    differences: pd.DataFrame
    control: str
    outcomes: list[str]
    """Outcomes that are shown: the study's own metric, and damage."""


def _read(catalog: Catalog) -> _Experiment:
    if not len(catalog.search(kind="intervention")):
        raise NothingToShow(
            "No populations of this study are arms of an experiment: add a section `intervention`."
        )
    arms = catalog.one(kind="arms").read()
    table = catalog.one(kind="intervention").read()
    table = table[(table["analysis"] == DIFFERENCE) & (table["stratum"] == "")]
    control = str(arms["control"].iloc[0])
    against = arms.loc[arms["population"] == control, "arm"].unique()
    table = table[table["against"].isin(against)]
    compared = set(table.loc[table["estimate"].notna(), "outcome"])
    shown = [name for name in headline(catalog, outcomes(arms)) if name in compared]
    if not shown:
        raise NothingToShow("No two arms of this experiment have a pair of members with a score.")
    return _Experiment(arms, table, control, shown)


@styled
def doses(catalog: Catalog) -> Figure:
    """Draw each member's outcome minus that of its pair in the control, against its coupling."""
    experiment = _read(catalog)
    final = experiment.arms[experiment.arms["final"]]
    control = final[final["population"] == experiment.control].set_index("pair")
    look = looks(final["population"].unique())
    columns = min(_COLUMNS, len(experiment.outcomes))
    rows = -(-len(experiment.outcomes) // columns)
    figure, axes = panels(rows, columns, size=(2.6, 2.1), sharex=True)
    for own in axes.flat[len(experiment.outcomes) :]:
        own.set_axis_off()
    for own, outcome in zip(axes.flat, experiment.outcomes, strict=False):
        for population, part in final.groupby("population", sort=False):
            colour, marker = look[str(population)]
            less = part[outcome] - part["pair"].map(control[outcome])
            own.scatter(part[COUPLING], less, s=6, color=colour, marker=marker, alpha=0.35, lw=0)
            means = part.assign(less=less).groupby("arm", sort=False)[[COUPLING, "less"]].mean()
            means = means.sort_values(COUPLING)
            own.plot(means[COUPLING], means["less"], color=colour, marker=marker, lw=0.9, mec="w")
        _matters(own, experiment.differences, outcome, vertical=False)
        own.axhline(0, color=FAINT, lw=0.7)
        own.set_title(label(outcome))
    for own in axes[:, 0]:
        own.set_ylabel("difference from\nthe control's pair")
    for own in axes.flat[max(0, len(experiment.outcomes) - columns) : len(experiment.outcomes)]:
        own.set_xlabel("coupling reached")
        own.tick_params(labelbottom=True)
    legend_below(figure, keys(look))
    return figure


@styled
def arms(catalog: Catalog) -> Figure:
    """Draw the difference of every arm from the control, with its interval, by outcome."""
    experiment = _read(catalog)
    table = experiment.differences
    names = list(table["arm"].unique())[::-1]
    shown = [COUPLING, *experiment.outcomes]
    columns = min(5, len(shown))
    rows = -(-len(shown) // columns)
    look = {TOKENS: Look("#0072B2", "o"), LOSS: Look("#D55E00", "D")}
    height = 1.3 + 0.26 * len(names)
    figure, axes = panels(rows, columns, size=(1.75, height), sharey=True)
    for own in axes.flat[len(shown) :]:
        own.set_axis_off()
    for own, outcome in zip(axes.flat, shown, strict=False):
        part = table[table["outcome"] == outcome]
        for at, shift in ((TOKENS, 0.16), (LOSS, -0.16)):
            rows_of = part[part["at"] == at]
            y = [names.index(arm) + shift for arm in rows_of["arm"]]
            colour, marker = look[at]
            own.hlines(y, rows_of["low"], rows_of["high"], color=colour, lw=1)
            own.scatter(rows_of["estimate"], y, s=12, color=colour, marker=marker, zorder=3)
        own.axvline(0, color=FAINT, lw=0.7)
        _matters(own, table, outcome, vertical=True)
        own.set_title(label(outcome))
        own.locator_params(axis="x", nbins=4)
        own.margins(x=0.12)
        own.grid(axis="y", visible=False)
    for line in axes:
        line[0].set_yticks(range(len(names)), names)
        line[0].set_ylim(-0.6, len(names) - 0.4)
    for own in axes[-1]:
        own.set_xlabel("difference")
    figure.suptitle(f"Difference from {experiment.control}, 95 % interval over pairs", size=8.5)
    legend_below(figure, keys(look, line=False))
    return figure


@styled
def course(catalog: Catalog) -> Figure:
    """Draw the scores of all checkpoints against their training loss, arm by arm."""
    experiment = _read(catalog)
    table = experiment.arms
    shown = [n for n in experiment.outcomes if not n.startswith((DAMAGE, TRAINING))]
    loss = f"{TRAINING}{shown[0].rsplit('.', maxsplit=1)[-1]}" if shown else ""
    if loss not in table:
        raise NothingToShow("No checkpoint of this experiment has a score on its training text.")
    look = looks(table["arm"].unique())
    figure, axes = panels(1, len(shown), size=(3.2, 2.6), sharex=True)
    for own, outcome in zip(axes.flat, shown, strict=True):
        for arm, part in table.groupby("arm", sort=False):
            colour, marker = look[str(arm)]
            for _, one in part.sort_values("step").groupby("pair"):
                own.plot(one[loss], one[outcome], color=colour, lw=0.6, alpha=0.35)
            means = part.groupby("step")[[loss, outcome]].mean()
            own.plot(means[loss], means[outcome], color=colour, marker=marker, lw=0.9, mec="w")
        for at in table["compared_at"].dropna().unique():
            own.axvline(at, color=FAINT, lw=0.7, ls="--")
        own.set_xlabel(label(loss))
        own.set_ylabel(label(outcome))
    axes.flat[0].invert_xaxis()
    legend_below(figure, keys(look))
    return figure


def _matters(axes: Axes, table: pd.DataFrame, outcome: str, *, vertical: bool) -> None:
    """Shade differences below the smallest effect of interest, if the study has one."""
    smallest: Any = table.loc[table["outcome"] == outcome, "smallest"].max()
    if smallest > 0:
        span = axes.axvspan if vertical else axes.axhspan
        span(-smallest, smallest, color="#eef2f6", zorder=0)
