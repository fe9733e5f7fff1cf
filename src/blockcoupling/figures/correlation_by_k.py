"""How well coupling goes with the score, for every K and variant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockcoupling.figures.data import NothingToShow
from blockcoupling.figures.style import keys, legend_below, looks, panels, styled
from blockcoupling.wording import words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog


def from_catalog(catalog: Catalog) -> Figure:
    """Draw the figure from the entry of the kind correlation_by_k."""
    table = catalog.one(kind="correlation_by_k").read()
    if table.empty or table["r2"].isna().all():
        raise NothingToShow("No correlation can be computed: too few checkpoints have a score.")
    return draw(table)


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Draw a line for each variant.

    Args:
        table: variant, k, r2, r2_low, r2_high, pearson, n, score, metric, subset.

    """
    variants = list(table["variant"].drop_duplicates())
    look = looks(variants)
    figure, axes = panels(1, 1, size=(4.2, 3.0))
    own = axes[0, 0]
    for n, variant in enumerate(variants):
        line = table[table["variant"] == variant].sort_values("k")
        x = line["k"].to_numpy(float) * 1.03 ** (n - len(variants) / 2)  # beside each other
        r2 = line["r2"].to_numpy(float)
        bounds = np.abs(line[["r2_low", "r2_high"]].to_numpy(float).T - r2)
        own.errorbar(
            x,
            r2,
            yerr=np.nan_to_num(bounds),
            color=look[variant].color,
            marker=look[variant].marker,
            mec="white",
            mew=0.4,
            ms=4.5,
            elinewidth=0.7,
        )
    own.set_xscale("log")
    own.set_xticks(sorted(table["k"].unique()), [str(k) for k in sorted(table["k"].unique())])
    own.minorticks_off()
    own.set_ylim(-0.03, 1.03)
    own.set_xlabel("number of singular vectors K")
    first = table.iloc[0]
    own.set_ylabel(f"R² of coupling with\n{words(first['score'])}, {words(first['metric'])}")
    own.set_title(f"{first['subset']}, n = {first['n']}")
    legend_below(figure, keys({words(variant): look[variant] for variant in variants}))
    return figure
