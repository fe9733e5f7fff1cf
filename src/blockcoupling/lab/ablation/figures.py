"""Ablation damage against coupling and its baselines, by pairs of blocks and by single blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from blockcoupling.config.damage import ALL_TREATMENTS, TREATMENTS
from blockcoupling.figures.data import NothingToShow, ends, largest
from blockcoupling.figures.matrices import Matrices, Matrix, Scaling
from blockcoupling.figures.matrix import CENTRES
from blockcoupling.figures.style import (
    FAINT,
    keys,
    legend_below,
    log_heights,
    log_widths,
    looks,
    panels,
    styled,
)
from blockcoupling.wording import number, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

AXES = {
    "miscoupling": "mis-coupling m",
    "distance": "distance |i − j|, blocks",
    "block_influence": "block influence, 1 − cos",
    "cosine_distance": "1 − cos(input, output of both)",
}
"""Predictors of the damage of a pair of blocks, with the labels of their axes."""

_OF_ONE = {
    "skip": "block i is ablated",
    "exit": "block i is the last before the head",
    "displace": "input of block i, along its v₁",
    "displace_random": "input of block i, at random",
}
_COSINES = ("block_influence", "cosine_distance")
_PAIRED = [name for name in ALL_TREATMENTS if TREATMENTS[name].pairs]
_BASELINES = (
    *("miscoupling", "excess", "output_overlap", "input_overlap", "composition"),
    *("distance", "depth", "cosine_distance", "block_influence", "jacobian_norm", "s1"),
)


class _Model(NamedTuple):
    """The largest model with ablated blocks, and its checkpoints."""

    name: str
    untrained: str | None
    trained: str | None
    pairs: pd.DataFrame
    statistics: pd.DataFrame

    def of(self, checkpoint: str | None) -> pd.DataFrame:
        return self.pairs[self.pairs["checkpoint"] == checkpoint]

    @property
    def states(self) -> list[tuple[str, str]]:
        """Untrained and trained, as far as they were measured: a label and the checkpoint."""
        both = (("untrained", self.untrained), ("trained", self.trained))
        return [(f"{s} ({c})", c) for s, c in both if c is not None and len(self.of(c))]


def _largest(catalog: Catalog) -> _Model:
    if not len(catalog.search(kind="damage_pairs")):
        raise NothingToShow("No blocks were ablated in this study: add a section `damage`.")
    pairs = catalog.one(kind="damage_pairs").read()
    statistics = catalog.one(kind="damage_statistics").read()
    have = set(pairs["model"])
    (end,) = largest([each for each in ends(catalog) if each.model in have], 1)
    own = [table[table["model"] == end.model] for table in (pairs, statistics)]
    found = _Model(end.model, end.untrained, end.trained, *own)
    if not found.states:
        raise NothingToShow(f"{end.model}: no blocks were ablated untrained or trained.")
    return found


@styled
def by_pairs(catalog: Catalog) -> Figure:
    """Draw the damage of pairs against m, distance, block influence and cosine."""
    model = _largest(catalog)
    _, checkpoint = model.states[-1]
    own = model.of(checkpoint)
    own = own[(own["blocks"] == "two") & own["kl"].notna()]
    rows = [name for name in _PAIRED if (own["treatment"] == name).any()]
    columns = [name for name in AXES if name in own and own[name].notna().any()]
    if not rows or not columns:
        raise NothingToShow("No pairs of blocks were ablated in this study: set damage.pairs.")
    figure, axes = panels(len(rows), len(columns), size=(2.3, 1.9), sharex="col", sharey="row")
    image: Any = None
    for line, treatment in zip(axes, rows, strict=True):
        part = own[own["treatment"] == treatment]
        for panel, name in zip(line, columns, strict=True):
            middle = (part["block"] + part["block_other"]) / 2
            image = panel.scatter(part[name], part["kl"], s=7, c=middle, cmap="viridis", lw=0)
            if name in _COSINES:
                log_widths(panel, own[name])
            else:
                panel.locator_params(axis="x", nbins=4)
            panel.set_title(_correlations(model.statistics, checkpoint, treatment, name), size=7)
        log_heights(line[0], part["kl"])
        line[0].set_ylabel(f"{treatment}\nKL, nats per token")
    for panel, name in zip(axes[-1], columns, strict=True):
        panel.set_xlabel(AXES[name])
    bar = figure.colorbar(image, ax=axes, pad=0.02, shrink=0.6 if len(rows) > 1 else 1, aspect=30)
    bar.set_label(f"{model.name}, {checkpoint}\ndepth (i + j)/2, blocks")
    bar.outline.set_visible(False)
    return figure


def _correlations(statistics: pd.DataFrame, checkpoint: str, treatment: str, predictor: str) -> str:
    """Return Spearman's ρ of a panel, and its partial ρ controlling for distance."""
    rows = statistics[
        (statistics["checkpoint"] == checkpoint)
        & (statistics["treatment"] == treatment)
        & (statistics["blocks"] == "two")
        & (statistics["outcome"] == "kl")
        & (statistics["predictor"] == predictor)
        & statistics["headline"]
    ]
    names = {"": "ρ", "distance": "ρ given |i − j|"}
    listed = zip(rows["given"].astype(str), rows["rho"].to_numpy(float), rows["p"], strict=True)
    return "\n".join(
        f"{names[given]} {number(rho)} ({_p(float(p))})"
        for given, rho, p in listed
        if given in names and np.isfinite(rho)
    )


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def matrices(catalog: Catalog) -> Matrices:
    """Mis-coupling and the damage of every treatment of two blocks, untrained above trained."""
    model = _largest(catalog)
    two = model.pairs[model.pairs["blocks"] == "two"]
    treatments = [name for name in _PAIRED if (two["treatment"] == name).any()]
    states = [each for each in model.states if (two["checkpoint"] == each[1]).any()]
    if not treatments:
        raise NothingToShow("No pairs of blocks were ablated in this study: set damage.pairs.")
    variant, k = two["variant"].iloc[0], two["k"].iloc[0]
    panels = []
    for label, checkpoint in states:
        own = two[two["checkpoint"] == checkpoint]
        values = _miscoupling(own)
        known = ~np.isfinite(values)
        panels.append(Matrix("m", label, "mis-coupling m", values, known, _M))
        for name in treatments:
            values, refused = _damage(own[own["treatment"] == name], name, len(values))
            panels.append(Matrix(name, label, name, values, ~np.isfinite(values) & ~refused, _KL))
    scales = {
        _M: Scaling(f"{model.name}: m ({words(variant)}, K = {k})", CENTRES[variant]),
        _KL: Scaling("log₁₀ of KL, nats per token", None),
    }
    return Matrices(panels, scales)


_M, _KL = "m", "kl"


def _miscoupling(own: pd.DataFrame) -> np.ndarray:
    """Return m by blocks: in both orders if they were measured, else the mean of both in each."""
    size = int(own[["block", "block_other"]].max().max())
    values = np.full((size, size), np.nan)
    ordered = own[[TREATMENTS[name].ordered for name in own["treatment"]]]
    part = ordered if len(ordered) else own
    values[part["block"] - 1, part["block_other"] - 1] = part["miscoupling"]
    if not len(ordered):
        values[part["block_other"] - 1, part["block"] - 1] = part["miscoupling"]
    return values


def _damage(part: pd.DataFrame, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log10 of the damage of a treatment by blocks, and which blocks it cannot exchange."""
    values, refused = np.full((size, size), np.nan), np.zeros((size, size), dtype=bool)
    at, other = part["block"] - 1, part["block_other"] - 1
    kl = part["kl"].to_numpy(float)
    values[at, other] = np.log10(kl, out=np.full(len(kl), np.nan), where=kl > 0)
    if not TREATMENTS[name].ordered:  # type: ignore[index]
        values[other, at] = values[at, other]
    refused[at, other] = part["reason"] != ""
    return values, refused | refused.T


@styled
def by_block(catalog: Catalog) -> Figure:
    """Draw the damage of ablating each block, and of exiting after it, by block."""
    model = _largest(catalog)
    one = model.pairs[model.pairs["blocks"] == "one"]
    treatments = [name for name in ALL_TREATMENTS if (one["treatment"] == name).any()]
    if not treatments:
        raise NothingToShow("No single block was ablated in this study: add to damage.treatments.")
    figure, axes = panels(len(treatments), 2, size=(3.2, 2.3), sharey="row")
    look = looks([label for label, _ in model.states])
    for line, treatment in zip(axes, treatments, strict=True):
        for label, checkpoint in model.states:
            own = one[(one["checkpoint"] == checkpoint) & (one["treatment"] == treatment)]
            own = own.sort_values("block")
            colour, marker = look[label]
            line[0].plot(own["block"], own["kl"], color=colour, marker=marker)
            if "block_influence" in own:
                line[1].scatter(own["block_influence"], own["kl"], color=colour, marker=marker, s=9)
                _number(line[1], own)
        line[0].set_title(f"{words(treatment)}: {_OF_ONE[treatment]}")
        line[0].set_ylabel("KL, nats per token")
        log_heights(line[0], one.loc[one["treatment"] == treatment, "kl"])
        if "block_influence" in one:
            log_widths(line[1], one["block_influence"])
    axes[-1][0].set_xlabel("block i")
    axes[-1][1].set_xlabel(AXES["block_influence"])
    figure.suptitle(model.name, size=8.5)
    legend_below(figure, keys(look))
    return figure


def _number(axes: Axes, own: pd.DataFrame) -> None:
    """Number the three blocks with the largest damage."""
    for row in own.nlargest(3, "kl").itertuples():
        axes.annotate(str(row.block), (row.block_influence, row.kl), size=6, color=FAINT)


@styled
def baselines(catalog: Catalog) -> Figure:
    """Draw how each measure correlates with the damage, for every model and treatment."""
    _largest(catalog)  # or else there is nothing to show
    statistics = catalog.one(kind="damage_statistics").read()
    shown = statistics[(statistics["outcome"] == "kl") & statistics["headline"]]
    shown = shown[shown["blocks"] == "two"] if (shown["blocks"] == "two").any() else shown
    finals = {end.model: end.trained for end in ends(catalog)}
    shown = shown[shown["checkpoint"] == shown["model"].map(finals)]
    if shown["rho"].notna().sum() == 0:
        raise NothingToShow("No trained model has enough ablated pairs for a correlation.")
    treatments = [name for name in ALL_TREATMENTS if (shown["treatment"] == name).any()]
    givens = list(dict.fromkeys(shown["given"]))
    names = [name for name in _BASELINES if (shown["predictor"] == name).any()]
    models = list(dict.fromkeys(shown["model"]))
    look = looks(models)
    offsets = np.linspace(-0.25, 0.25, len(models)) if len(models) > 1 else np.zeros(1)
    figure, axes = panels(len(givens), len(treatments), size=(2.0, 2.1), sharex=True, sharey=True)
    for line, given in zip(axes, givens, strict=True):
        for panel, treatment in zip(line, treatments, strict=True):
            for offset, name in zip(offsets, models, strict=True):
                own = shown[
                    (shown["given"] == given)
                    & (shown["treatment"] == treatment)
                    & (shown["model"] == name)
                ]
                heights = own["predictor"].map(names.index) + offset
                colour, marker = look[name]
                sure = own["p"] < 0.05
                for part, face in ((sure, colour), (~sure, "white")):
                    panel.scatter(
                        own["rho"][part],
                        heights[part],
                        s=13,
                        marker=marker,
                        facecolor=face,
                        edgecolor=colour,
                        lw=0.8,
                    )
            panel.axvline(0, color=FAINT, lw=0.7)
            panel.set_xlim(-1.05, 1.05)
        line[0].set_ylabel(
            f"controlling for\n{words(given)}".replace(", ", ",\n") if given else "alone"
        )
        line[0].set_yticks(range(len(names)), [words(name) for name in names])
    axes[0][0].invert_yaxis()
    for panel, treatment in zip(axes[0], treatments, strict=True):
        panel.set_title(treatment)
    for panel in axes[-1]:
        panel.set_xlabel("Spearman's ρ with KL")
    legend_below(figure, keys(look, line=False))
    return figure
