"""What blocks are worth: damage against coupling and its rivals, by pairs and by single blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from blockcoupling.config.damage import ALL_TREATMENTS, TREATMENTS
from blockcoupling.figures.data import NothingToShow, ends, largest
from blockcoupling.figures.matrix import CENTRES, Scale, colour_bar, draw_matrix
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
from blockcoupling.wording import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

AXES = {
    "miscoupling": "mis-coupling m",
    "distance": "distance |i − j|, blocks",
    "block_influence": "block influence, 1 − cos",
    "cosine_distance": "1 − cos(x before, x after both)",
}
"""What pairs of blocks are told apart by, and its axis."""

_COSINES = ("block_influence", "cosine_distance")
_PAIRED = [name for name in ALL_TREATMENTS if TREATMENTS[name].pairs]
_RIVALS = (
    *("miscoupling", "excess", "output_overlap", "input_overlap", "composition"),
    *("distance", "depth", "cosine_distance", "block_influence", "jacobian_norm", "s1"),
)


class _Model(NamedTuple):
    """The largest model whose blocks were changed, and the checkpoints that can be shown."""

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
        raise NothingToShow(
            "No blocks were changed in this study. Ask for it with a section `damage`."
        )
    pairs = catalog.one(kind="damage_pairs").read()
    statistics = catalog.one(kind="damage_statistics").read()
    have = set(pairs["model"])
    (end,) = largest([each for each in ends(catalog) if each.model in have], 1)
    own, told = (table[table["model"] == end.model] for table in (pairs, statistics))
    found = _Model(end.model, end.untrained, end.trained, own, told)
    if not found.states:
        raise NothingToShow(f"{end.model}: neither end of its training had its blocks changed.")
    return found


def by_pairs(catalog: Catalog) -> Figure:
    """Draw the damage of pairs against m, distance, block influence and cosine."""
    return _against(_largest(catalog))


@styled
def _against(model: _Model) -> Figure:
    _, checkpoint = model.states[-1]
    own = model.of(checkpoint)
    own = own[(own["blocks"] == "two") & own["kl"].notna()]
    rows = [name for name in _PAIRED if (own["treatment"] == name).any()]
    columns = [name for name in AXES if name in own and own[name].notna().any()]
    if not rows or not columns:
        raise NothingToShow("No pairs of blocks were changed in this study: damage.pairs.")
    figure, axes = panels(len(rows), len(columns), size=(2.3, 1.9), sharex="col", sharey="row")
    image: Any = None
    for line, treatment in zip(axes, rows, strict=True):
        part = own[own["treatment"] == treatment]
        for panel, rival in zip(line, columns, strict=True):
            middle = (part["block"] + part["block_other"]) / 2
            image = panel.scatter(part[rival], part["kl"], s=7, c=middle, cmap="viridis", lw=0)
            if rival in _COSINES:
                log_widths(panel, own[rival])
            else:
                panel.locator_params(axis="x", nbins=4)
            panel.set_title(_told(model.statistics, checkpoint, treatment, rival), size=7)
        log_heights(line[0], part["kl"])
        line[0].set_ylabel(f"{treatment}\nKL, nats a token")
    for panel, rival in zip(axes[-1], columns, strict=True):
        panel.set_xlabel(AXES[rival])
    bar = figure.colorbar(image, ax=axes, pad=0.02, shrink=0.6, aspect=30)
    bar.set_label(f"{model.name}, {checkpoint}: depth of the pair, (i + j)/2 in blocks")
    bar.outline.set_visible(False)
    return figure


def _told(statistics: pd.DataFrame, checkpoint: str, treatment: str, rival: str) -> str:
    """Spearman's ρ of a panel and, given distance, what is left of it."""
    rows = statistics[
        (statistics["checkpoint"] == checkpoint)
        & (statistics["treatment"] == treatment)
        & (statistics["blocks"] == "two")
        & (statistics["outcome"] == "kl")
        & (statistics["predictor"] == rival)
        & statistics["headline"]
    ]
    names = {"": "ρ", "distance": "given |i − j|"}
    told = zip(rows["given"].astype(str), rows["rho"].to_numpy(float), rows["p"], strict=True)
    return "\n".join(
        f"{names[given]} {rho:.2f} ({_p(float(p))})"
        for given, rho, p in told
        if given in names and np.isfinite(rho)
    )


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def matrices(catalog: Catalog) -> Figure:
    """Draw mis-coupling and the damage of every treatment of two blocks side by side."""
    return _matrices(_largest(catalog))


@styled
def _matrices(model: _Model) -> Figure:
    two = model.pairs[model.pairs["blocks"] == "two"]
    treatments = [name for name in _PAIRED if (two["treatment"] == name).any()]
    states = [each for each in model.states if (two["checkpoint"] == each[1]).any()]
    if not treatments:
        raise NothingToShow("No pairs of blocks were changed in this study: damage.pairs.")
    variant, k = two["variant"].iloc[0], two["k"].iloc[0]
    drawn = {
        (label, name): _matrix(two[two["checkpoint"] == checkpoint], name)
        for label, checkpoint in states
        for name in ("miscoupling", *treatments)
    }
    m = Scale([values for (_, n), values in drawn.items() if n == "miscoupling"], CENTRES[variant])
    kl = Scale([values for (_, n), values in drawn.items() if n != "miscoupling"], None)
    figure, axes = panels(len(states), 1 + len(treatments), size=(2.2, 2.2))
    images: dict[str, Any] = {}
    for line, (label, _) in zip(axes, states, strict=True):
        for panel, name in zip(line, ("miscoupling", *treatments), strict=True):
            values = drawn[label, name]
            image = draw_matrix(
                panel,
                values,
                m if name == "miscoupling" else kl,
                by_definition=~np.isfinite(values) & ~_refused(two, label, states, name, values),
            )
            images["m" if name == "miscoupling" else "kl"] = image
            panel.set_title("mis-coupling m" if name == "miscoupling" else name)
            panel.set_xlabel("block j")
        line[0].set_ylabel(f"{label}\nblock i")
    colour_bar(figure, images["m"], axes[:, :1], f"m ({words(variant)}, K = {k})", location="left")
    colour_bar(figure, images["kl"], axes[:, 1:], f"{model.name}: log₁₀ of KL,\nnats a token")
    return figure


def _matrix(own: pd.DataFrame, name: str) -> np.ndarray:
    """m, or log10 of the damage of a treatment, by blocks; NaN where it was not measured."""
    size = int(own[["block", "block_other"]].max().max())
    values = np.full((size, size), np.nan)
    if name == "miscoupling":
        # Where both orders were taken m is not symmetric; else it is the mean of both.
        ordered = own[own["treatment"] == "replace"]
        part = ordered if len(ordered) else own
        values[part["block"] - 1, part["block_other"] - 1] = part[name]
        if not len(ordered):
            values[part["block_other"] - 1, part["block"] - 1] = part[name]
        return values
    part = own[own["treatment"] == name]
    with np.errstate(divide="ignore"):
        height = np.log10(part["kl"].to_numpy(float))
    height = np.where(np.isfinite(height), height, np.nan)
    values[part["block"] - 1, part["block_other"] - 1] = height
    if not TREATMENTS[name].ordered:  # type: ignore[index]
        values[part["block_other"] - 1, part["block"] - 1] = height
    return values


def _refused(
    two: pd.DataFrame, label: str, states: list[tuple[str, str]], name: str, values: np.ndarray
) -> np.ndarray:
    """Where two blocks could not be exchanged: hatched, unlike what was not asked for."""
    mask = np.zeros(values.shape, dtype=bool)
    checkpoint = dict(states)[label]
    part = two[(two["checkpoint"] == checkpoint) & (two["treatment"] == name)]
    part = part[part["reason"] != ""]
    mask[part["block"] - 1, part["block_other"] - 1] = True
    return mask | mask.T


def by_block(catalog: Catalog) -> Figure:
    """Draw the damage of leaving out each block, and of leaving early, by block."""
    return _by_block(_largest(catalog))


@styled
def _by_block(model: _Model) -> Figure:
    one = model.pairs[model.pairs["blocks"] == "one"]
    treatments = [name for name in ALL_TREATMENTS if (one["treatment"] == name).any()]
    if not treatments:
        raise NothingToShow("No single block was left out in this study: damage.treatments.")
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
        title = "left out" if treatment == "skip" else "the last one before the head"
        line[0].set_title(f"{treatment}: block i is {title}")
        line[0].set_ylabel("KL, nats a token")
        log_heights(line[0], one.loc[one["treatment"] == treatment, "kl"])
        if "block_influence" in one:
            log_widths(line[1], one["block_influence"])
    axes[-1][0].set_xlabel("block i")
    axes[-1][1].set_xlabel(AXES["block_influence"])
    figure.suptitle(model.name, size=8.5)
    legend_below(figure, keys(look))
    return figure


def _number(axes: Axes, own: pd.DataFrame) -> None:
    """Name the blocks that stand out: the three of the largest damage."""
    for row in own.nlargest(3, "kl").itertuples():
        axes.annotate(str(row.block), (row.block_influence, row.kl), size=6, color=FAINT)


def baselines(catalog: Catalog) -> Figure:
    """Draw how well each rival tells the damage, for every model and treatment."""
    return _rivals(_largest(catalog), catalog.one(kind="damage_statistics").read(), catalog)


@styled
def _rivals(model: _Model, statistics: pd.DataFrame, catalog: Catalog) -> Figure:
    told = statistics[(statistics["outcome"] == "kl") & statistics["headline"]]
    told = told[told["blocks"] == "two"] if (told["blocks"] == "two").any() else told
    finals = {end.model: end.trained for end in ends(catalog)}
    told = told[told["checkpoint"] == told["model"].map(finals)]
    if told["rho"].notna().sum() == 0:
        raise NothingToShow("No trained model has enough pairs of changed blocks to be told apart.")
    treatments = [name for name in ALL_TREATMENTS if (told["treatment"] == name).any()]
    givens = list(dict.fromkeys(told["given"]))
    names = [name for name in _RIVALS if (told["predictor"] == name).any()]
    models = list(dict.fromkeys(told["model"]))
    look = looks(models)
    offsets = np.linspace(-0.25, 0.25, len(models)) if len(models) > 1 else np.zeros(1)
    figure, axes = panels(len(givens), len(treatments), size=(2.0, 2.1), sharex=True, sharey=True)
    for line, given in zip(axes, givens, strict=True):
        for panel, treatment in zip(line, treatments, strict=True):
            for offset, name in zip(offsets, models, strict=True):
                own = told[
                    (told["given"] == given)
                    & (told["treatment"] == treatment)
                    & (told["model"] == name)
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
        line[0].set_ylabel(f"given {given.replace('_', ' ')}" if given else "nothing held fixed")
        line[0].set_yticks(range(len(names)), [words(name) for name in names])
    axes[0][0].invert_yaxis()
    for panel, treatment in zip(axes[0], treatments, strict=True):
        panel.set_title(treatment)
    for panel in axes[-1]:
        panel.set_xlabel("Spearman's ρ with KL")
    legend_below(figure, keys(look, line=False))
    return figure
