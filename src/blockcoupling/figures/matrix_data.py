"""What the figures of matrices show, read from the catalog: one function each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from blockcoupling.computing import computed
from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.errors import UserError
from blockcoupling.figures.data import NothingToShow, ends, ends_of, largest, settings
from blockcoupling.figures.matrices import Matrices, Matrix, Scaling
from blockcoupling.figures.matrix import CENTRES, off_diagonal
from blockcoupling.reduce.overlap import above_chance
from blockcoupling.reduce.width import dimension
from blockcoupling.wording import words

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from blockcoupling.catalog import Catalog

_MOST_OVERLAPS = 2
_MOST_BLOCKS = 6
_MISCOUPLING = "miscoupling"
_STATES = ("untrained", "trained")


def miscoupling(catalog: Catalog, k: int | None = None, variant: str | None = None) -> Matrices:
    """Mis-coupling of every model, untrained above trained, means over datasets."""
    k, variant = settings(catalog, k, variant)
    panels = []
    for pair in ends(catalog):
        for state, checkpoint in zip(_STATES, (pair.untrained, pair.trained), strict=True):
            if checkpoint is None:
                text = f"{pair.model}:\nno {state}\ncheckpoint"
                panels.append(Matrix(pair.model, state, text, None))
                continue
            means = [
                each["miscoupling_mean"].sel(variant=variant, K=k).to_numpy()
                for each in _stores(catalog, pair.model, checkpoint)
            ]
            panels.append(_titled(pair.model, state, checkpoint, np.mean(means, axis=0)))
    present = {each.row for each in panels if each.values is not None}
    if not present:
        raise NothingToShow("No model of this study was measured.")
    return Matrices([each for each in panels if each.row in present], _of_all(k, variant))


def by_token(catalog: Catalog, k: int | None = None, variant: str | None = None) -> Matrices:
    """Mis-coupling of trained models at each of the tokens where they were measured."""
    k, variant = settings(catalog, k, variant)
    panels = []
    for model, checkpoint, state in ends_of(catalog):
        stores = _stores(catalog, model, checkpoint) if state == "trained" else []
        if not stores or not all("miscoupling_by_pair_mean" in each for each in stores):
            continue
        # All datasets of a model are measured at the same tokens.
        means = [each["miscoupling_by_pair_mean"] for each in stores]
        mean = sum(means[1:], start=means[0]) / len(means)
        values = mean.sel(variant=variant, K=k).to_numpy()
        panels += [
            _titled(model, str(token), checkpoint, values[n])
            for n, token in enumerate(stores[0]["tokens"].to_numpy())
        ]
    if not panels:
        raise NothingToShow(
            "Models were measured at one token each, or at tokens that differ between prompts. "
            "For two: measured_at: [class, mean] in a model's entry, or "
            "extract: {tokens: [0, -1]}."
        )
    return Matrices(panels, _of_all(k, variant))


def overlaps(catalog: Catalog, k: int | None = None, variant: str | None = None) -> Matrices:
    """Mis-coupling and the overlaps above chance of the largest models, a row per checkpoint."""
    k, variant = settings(catalog, k, variant)
    panels, lacking = [], []
    for model, checkpoint, _ in ends_of(catalog, most=_MOST_OVERLAPS):
        stores = _stores(catalog, model, checkpoint)
        if not all(f"{name}_mean" in each for each in stores for name in OVERLAPS):
            lacking.append(f"{model} {checkpoint}")
            continue
        each = [_with_overlaps(store, k, variant) for store in stores]
        for name in each[0]:
            values = np.mean([matrices[name] for matrices in each], axis=0)
            known = _by_definition(len(values), name)
            defined = values[~known & np.isfinite(values)]
            title = f"mean {defined.mean():.3f}" if len(defined) else "all undefined"
            if name == _MISCOUPLING:
                title = f"{model}, {checkpoint}\n{title}"
            panels.append(Matrix(name, (model, checkpoint), title, values, known, name))
    if not panels:
        whose = f" of {', '.join(lacking)}" if lacking else ""
        raise NothingToShow(
            f"No overlaps were measured{whose}: set extract.overlaps to true for this figure."
        )
    scales = {_MISCOUPLING: Scaling(f"mis-coupling m(i, j)\n{words(variant)}, K = {k}",
                                    CENTRES.get(variant))}  # fmt: skip
    for name, overlap in OVERLAPS.items():
        scales[name] = Scaling(f"{overlap.label}\nabove chance, K = {k}", 0.0, similar_above=True)
    return Matrices(panels, scales)


def tokens(
    catalog: Catalog, comparison: str, k: int | None = None, variant: str | None = None
) -> Matrices:
    """Mis-coupling between tokens of the first prompt of the largest model, by pair of blocks.

    `self` compares J[t, t] with J[t', t']; `input_fixed` compares J[t1, t2] with J[t1, t2'], with
    t1 the first token that was compared; `output_fixed` compares J[t1, t2] with J[t1', t2], with t2
    the last one.
    """
    found = catalog.search(kind="tokenwise")
    if not len(found):
        raise NothingToShow("No tokens were compared in this study: add a section `tokenwise`.")
    k, variant = settings(catalog, k, variant)
    compared = set(found.facets()["model"])
    (pair,) = largest([each for each in ends(catalog) if each.model in compared], 1)
    panels: list[Matrix] = []
    for state, checkpoint in zip(_STATES, (pair.untrained, pair.trained), strict=True):
        if checkpoint is None:
            continue
        own = found.search(model=pair.model, checkpoint=checkpoint)
        if not len(own):
            continue
        table = own[next(iter(own))].read()
        prompt, dataset = table["prompt"].iloc[0], str(table["dataset"].iloc[0])
        table = table[(table["prompt"] == prompt) & (table["comparison"] == comparison)]
        drawn_k = int(table["k"][table["k"] <= k].max())
        table = table[(table["variant"] == variant) & (table["k"] == drawn_k)]
        texts = _texts(catalog, pair.model, checkpoint, dataset, str(prompt))
        row = f"{state} ({checkpoint})"
        for blocks in (
            table[["block", "block_other"]].drop_duplicates().head(_MOST_BLOCKS).to_numpy()
        ):
            part = table[(table[["block", "block_other"]] == blocks).all(axis=1)]
            panels.append(_between_tokens(comparison, blocks, part, row, texts))
    label = f"{pair.model}: mis-coupling m\n({words(variant)}, K = {drawn_k})"
    return Matrices(panels, {"": Scaling(label, CENTRES.get(variant))})


def _between_tokens(
    comparison: str, blocks: Sequence[int], part: pd.DataFrame, row: str, texts: dict[int, str]
) -> Matrix:
    title, axis = f"blocks {blocks[0]}, {blocks[1]}", "token_out"
    if comparison == "input_fixed":
        fixed = part["token_in"].min()
        part, title = part[part["token_in"] == fixed], f"{title}, t₁ = {fixed}"
    if comparison == "output_fixed":
        fixed, axis = part["token_out"].max(), "token_in"
        part, title = part[part["token_out"] == fixed], f"{title}, t₂ = {fixed}"
    matrix = part.pivot_table(index=axis, columns=f"{axis}_other", values="miscoupling")
    names = [f"{texts[t]} {t}" if texts else str(t) for t in map(int, matrix.index)]
    # The Jacobian of a block compared with itself has m = 0.
    known = np.eye(len(matrix), dtype=bool) & (blocks[0] == blocks[1])
    return Matrix(tuple(blocks), row, title, matrix.to_numpy(np.float64), known, names=names)


def _texts(
    catalog: Catalog, model: str, checkpoint: str, dataset: str, prompt: str
) -> dict[int, str]:
    """Return the text of each token of a prompt."""
    found = catalog.search(kind="svd", model=model, checkpoint=checkpoint, dataset=dataset)
    ds = found[next(iter(found))].read()
    if "token_text" not in ds:
        return {}
    texts = ds["token_text"].sel(prompt=prompt).values
    return {t: str(text).strip() or "␣" for t, text in enumerate(texts)}


def _stores(catalog: Catalog, model: str, checkpoint: str) -> list[xr.Dataset]:
    """Return the matrices of a checkpoint on each dataset."""
    found = catalog.search(kind="miscoupling", model=model, checkpoint=checkpoint)
    if not len(found):
        raise UserError(f"no mis-coupling matrices of {model} {checkpoint} in the catalog")
    return [found[name].read() for name in found]


def _titled(model: str, row: str, checkpoint: str, values: NDArray[np.float64]) -> Matrix:
    mean = np.nanmean(off_diagonal(values))
    return Matrix(model, row, f"{model}, {checkpoint}\nmean {mean:.2f}", values)


def _of_all(k: int, variant: str) -> dict[str, Scaling]:
    label = f"mis-coupling m(i, j)\n({words(variant)}, K = {k})"
    return {"": Scaling(label, CENTRES.get(variant))}


def _with_overlaps(table: xr.Dataset, k: int, variant: str) -> dict[str, NDArray[np.float64]]:
    """Return mis-coupling and the overlaps of a checkpoint on one dataset, means over prompts."""
    own, d = table.sel(K=k), dimension(table)
    matrices = {_MISCOUPLING: own["miscoupling_mean"].sel(variant=variant).to_numpy()}
    if d is None:
        raise NothingToShow("The width of the models, which chance depends on, is unknown.")
    for name in OVERLAPS:
        mean = computed(own[f"{name}_mean"])
        matrices[name] = above_chance(mean, 0 * mean + k / d).to_numpy()
    return matrices


def _by_definition(size: int, name: str) -> NDArray[np.bool_]:
    """Return which entries are equal for every model, or undefined."""
    row, column = np.indices((size, size))
    earlier = name in OVERLAPS and OVERLAPS[name].earlier
    return column >= row if earlier else column == row
