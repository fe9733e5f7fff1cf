"""Coupling against the number of singular vectors, in every variant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from blockcoupling.config.variants import VARIANTS
from blockcoupling.figures.data import NothingToShow, at_last, ends
from blockcoupling.figures.style import FAINT, band, keys, legend_below, looks, panels, styled
from blockcoupling.statistics.points import CHECKPOINT, mean_over_prompts
from blockcoupling.wording import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entries of the kinds model, coupling and trajectory."""
    pairs = ends(catalog)
    shown = [
        (pair.model, checkpoint, trained)
        for pair in pairs
        for checkpoint, trained in ((pair.untrained, False), (pair.trained, True))
        if checkpoint is not None
    ]
    if not shown:
        raise NothingToShow("No model of this study was measured.")
    table = at_last(catalog, "coupling", [(model, checkpoint) for model, checkpoint, _ in shown])
    means = mean_over_prompts(table, [*CHECKPOINT, "variant", "k"], ["coupling"])
    order = pd.DataFrame(shown, columns=[*CHECKPOINT, "trained"])
    return draw(order.merge(means, on=CHECKPOINT))


@styled
def draw(means: pd.DataFrame) -> Figure:
    """Draw one panel per variant: a model's final checkpoint, and its untrained one dashed.

    Args:
        means: model, checkpoint, trained (bool), variant, k, coupling, coupling_se.

    """
    variants = [name for name in VARIANTS if (means["variant"] == name).any()]
    look = looks(means["model"].unique())
    columns = min(3, len(variants))
    rows = -(-len(variants) // columns)
    figure, axes = panels(rows, columns, size=(2.45, 2.1))
    for own, variant in zip(axes.flat, variants, strict=False):
        part = means[means["variant"] == variant].sort_values("k")
        for (model, trained), line in part.groupby(["model", "trained"], sort=False):
            band(
                own,
                line["k"],
                line["coupling"],
                line["coupling_se"],
                look[str(model)],
                "-" if trained else ":",
            )
        own.set_xscale("log")
        ticks = sorted(part["k"].unique())
        own.set_xticks(ticks, [str(tick) for tick in ticks])
        own.xaxis.set_minor_locator(NullLocator())
        own.set_xlabel("number of singular vectors K")
        own.set_title(words(variant))
    for own in axes.flat[len(variants) :]:
        own.set_axis_off()
    for own in axes[:, 0]:
        own.set_ylabel("coupling −⟨m⟩")
    states = [
        Line2D([], [], color=FAINT, ls=style, label=label)
        for label, style, trained in (("final checkpoint", "-", True), ("untrained", ":", False))
        if (means["trained"] == trained).any()
    ]
    legend_below(figure, [*keys(look), *states])
    return figure
