"""Mis-coupling between the Jacobians of a prompt's tokens, untrained above trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from blockcoupling.figures.data import NothingToShow, ends, largest, settings
from blockcoupling.figures.matrix import CENTRES, Scale, colour_bar, draw_matrix
from blockcoupling.figures.style import panels, styled
from blockcoupling.wording import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from blockcoupling.catalog import Catalog

_WIDEST = 6
_READABLE = 16  # tokens with their texts as labels


class Panel(NamedTuple):
    """Mis-coupling of tokens (rows i, columns j) for one pair of blocks at one checkpoint."""

    title: str
    tokens: list[int]
    values: NDArray[np.float64]
    by_definition: NDArray[np.bool_]
    """Where a Jacobian is held against itself, so that m is 0."""


def from_catalog(
    catalog: Catalog, comparison: str, *, k: int | None = None, variant: str | None = None
) -> Figure:
    """Draw the comparisons of one kind.

    `self` compares J[t, t] with J[t', t']; `input_fixed` compares J[t1, t2] with J[t1, t2'], with
    t1 the first token that was compared; `output_fixed` compares J[t1, t2] with J[t1', t2], with t2
    the last one.
    """
    found = catalog.search(kind="tokenwise")
    if not len(found):
        raise NothingToShow(
            "No tokens were compared in this study. Ask for it with a section `tokenwise`."
        )
    chosen = settings(catalog, k, variant)
    compared = set(found.facets()["model"])
    # One model has room.
    (pair,) = largest([each for each in ends(catalog) if each.model in compared], 1)
    rows: list[tuple[str, list[Panel]]] = []
    texts: dict[int, str] = {}
    for state, checkpoint in (("untrained", pair.untrained), ("trained", pair.trained)):
        if checkpoint is None:
            continue
        own = found.search(model=pair.model, checkpoint=checkpoint)
        if not len(own):
            continue
        name = next(iter(own))
        table = own[name].read()
        prompt = table["prompt"].iloc[0]
        table = table[(table["prompt"] == prompt) & (table["comparison"] == comparison)]
        drawn_k = int(table["k"][table["k"] <= chosen.k].max())
        table = table[(table["variant"] == chosen.variant) & (table["k"] == drawn_k)]
        texts = _texts(catalog, pair.model, checkpoint, str(table["dataset"].iloc[0]), str(prompt))
        label = f"{state} ({checkpoint})"
        rows.append(
            (label, [_panel(comparison, blocks, part) for blocks, part in _by_blocks(table)])
        )
    return draw(rows, comparison, texts, pair.model, drawn_k, chosen.variant)


def _by_blocks(table: pd.DataFrame) -> list[tuple[tuple[int, int], pd.DataFrame]]:
    pairs = table[["block", "block_other"]].drop_duplicates().head(_WIDEST)
    return [
        ((int(a), int(b)), table[(table["block"] == a) & (table["block_other"] == b)])
        for a, b in pairs.to_numpy()
    ]


def _panel(kind: str, blocks: tuple[int, int], part: pd.DataFrame) -> Panel:
    if kind == "input_fixed":
        part = part[part["token_in"] == part["token_in"].min()]
    if kind == "output_fixed":
        part = part[part["token_out"] == part["token_out"].max()]
    axis = "token_in" if kind == "output_fixed" else "token_out"
    matrix = part.pivot_table(index=axis, columns=f"{axis}_other", values="miscoupling")
    fixed = {
        "self": "",
        "input_fixed": f", t₁ = {int(part['token_in'].iloc[0])}",
        "output_fixed": f", t₂ = {int(part['token_out'].iloc[0])}",
    }[kind]
    return Panel(
        f"blocks {blocks[0]}, {blocks[1]}{fixed}",
        [int(t) for t in matrix.index],
        matrix.to_numpy(dtype=np.float64),
        np.eye(len(matrix), dtype=bool) & (blocks[0] == blocks[1]),
    )


def _texts(
    catalog: Catalog, model: str, checkpoint: str, dataset: str, prompt: str
) -> dict[int, str]:
    """Return what each token of the prompt says."""
    found = catalog.search(kind="svd", model=model, checkpoint=checkpoint, dataset=dataset)
    ds = found[next(iter(found))].read()
    if "token_text" not in ds:
        return {}
    texts = ds["token_text"].sel(prompt=prompt).values
    return {t: str(text).strip() or "␣" for t, text in enumerate(texts)}


_AXES = {
    "self": ("token t", "token t′"),
    "input_fixed": ("output token t₂", "output token t₂′"),
    "output_fixed": ("input token t₁", "input token t₁′"),
}


@styled
def draw(
    rows: list[tuple[str, list[Panel]]],
    kind: str,
    texts: dict[int, str],
    model: str,
    k: int,
    variant: str,
) -> Figure:
    """Draw a row of panels for each checkpoint, one colour scale for all.

    Args:
        rows: label of a checkpoint, and its panels.
        kind: which comparison.
        texts: token position → its text.
        model: whose tokens they are.
        k: how many singular vectors.
        variant: which mis-coupling.

    """
    across = max(len(row) for _, row in rows)
    scale = Scale(
        [panel.values[~panel.by_definition] for _, row in rows for panel in row],
        CENTRES.get(variant),
    )
    figure, axes = panels(len(rows), across, size=(2.6, 2.6))
    image: Any = None
    for own in axes.flat:
        own.set_axis_off()
    for line, (label, row) in zip(axes, rows, strict=True):
        for own, panel in zip(line, row, strict=False):
            image = draw_matrix(own, panel.values, scale, by_definition=panel.by_definition)
            own.set_title(panel.title)
            _ticks(own, panel.tokens, texts)
            own.set_xlabel(_AXES[kind][1])
        line[0].set_ylabel(f"{label}\n{_AXES[kind][0]}")
    colour_bar(
        figure,
        image,
        axes,
        f"{model}: mis-coupling m\n({words(variant)}, K = {k})",
        shrink=0.7,
        aspect=25,
    )
    return figure


def _ticks(axes: Any, tokens: list[int], texts: dict[int, str]) -> None:
    step = -(-len(tokens) // _READABLE)
    places = list(range(0, len(tokens), step))
    labels = [f"{texts[tokens[p]]} {tokens[p]}" if texts else str(tokens[p]) for p in places]
    labels = [label if len(label) <= 14 else f"{label[:9]}…{label[-4:]}" for label in labels]
    counted_from_one = [p + 1 for p in places]
    axes.set_xticks(counted_from_one, labels, rotation=90)
    axes.set_yticks(counted_from_one, labels)
    axes.tick_params(labelsize="x-small")
