"""Coupling and regularity of the final checkpoints, dataset by dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockcoupling.figures.data import NothingToShow, ends, settings
from blockcoupling.figures.style import keys, legend_below, looks, model_axis, panels, styled
from blockcoupling.statistics.points import CHECKPOINT, prompt_values
from blockcoupling.statistics.predictors import MEASURES, of_kind

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

_MEASURES = ("coupling", *(each.name for each in of_kind("trajectory")))


def from_catalog(catalog: Catalog, *, k: int | None = None, variant: str | None = None) -> Figure:
    """Draw the figure from the entries of the kinds coupling, trajectory, spectra and model."""
    chosen = settings(catalog, k, variant)
    trained = [(pair.model, pair.trained) for pair in ends(catalog) if pair.trained is not None]
    if not trained:
        raise NothingToShow("No trained model of this study was measured.")
    values = prompt_values(catalog, k=chosen.k, variant=chosen.variant)
    values = values[values[CHECKPOINT].apply(tuple, axis=1).isin(trained)]
    return draw(values, [model for model, _ in trained], chosen.k)


@styled
def draw(values: pd.DataFrame, models: list[str], k: int) -> Figure:
    """Draw a row for each measure; a mark is the mean over prompts, its line their spread.

    Args:
        values: model, dataset and the measures; a row is a prompt.
        models: in which order.
        k: how many singular vectors coupling is of.

    """
    look = looks(sorted(values["dataset"].unique()))
    width = max(4.6, 0.55 * len(models) + 1.4)
    figure, axes = panels(len(_MEASURES), 1, size=(width, 1.6), sharex=True)
    shifts = np.linspace(-0.3, 0.3, len(look)) if len(look) > 1 else [0.0]
    for own, measure in zip(axes[:, 0], _MEASURES, strict=True):
        for shift, (dataset, (colour, marker)) in zip(shifts, look.items(), strict=True):
            of_model = values[values["dataset"] == dataset].groupby("model")[measure]
            mean, spread = of_model.mean().reindex(models), of_model.std().reindex(models)
            own.errorbar(
                np.arange(len(models)) + shift,
                mean,
                yerr=spread.fillna(0),
                fmt=marker,
                color=colour,
                ms=4,
                mec="white",
                mew=0.4,
                elinewidth=0.8,
            )
        label = f"coupling (K = {k})" if measure == "coupling" else MEASURES[measure]
        own.set_ylabel(label)
        own.set_xlim(-0.6, len(models) - 0.4)
    model_axis(axes[-1, 0], models)
    axes[-1, 0].set_xlabel("model, final checkpoint, smallest first")
    legend_below(figure, keys(look, line=False))
    return figure
