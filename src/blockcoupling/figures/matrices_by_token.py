"""Mis-coupling between every two blocks by token: an image's class token, and its patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockcoupling.figures.data import NothingToShow, ends, settings
from blockcoupling.figures.matrices import Matrix, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog


def from_catalog(catalog: Catalog, *, k: int | None = None, variant: str | None = None) -> Figure:
    """Draw the figure from the entries of the kinds model and miscoupling."""
    k, variant = settings(catalog, k, variant)
    found: dict[str, dict[str, Matrix]] = {}
    for pair in ends(catalog):
        if pair.trained is None:
            continue
        own = catalog.search(kind="miscoupling", model=pair.model, checkpoint=pair.trained)
        stores = [own[name].read() for name in own]
        if not stores or not all("miscoupling_by_pair_mean" in each for each in stores):
            continue
        # Datasets of a model are measured at the same tokens.
        matrices = sum(each["miscoupling_by_pair_mean"] for each in stores) / len(stores)
        matrices = matrices.sel(variant=variant, K=k)
        found[pair.model] = {
            str(label): Matrix(pair.trained, matrices.isel(pair=n).to_numpy())
            for n, label in enumerate(stores[0]["tokens"].to_numpy())
        }
    if not found:
        raise NothingToShow(
            "Models were measured at one token each, or at tokens that differ between prompts. "
            "For two: measured_at: [class, mean] in a model's entry, or "
            "extract: {tokens: [0, -1]}."
        )
    labels = tuple(dict.fromkeys(label for own in found.values() for label in own))
    rows = {model: tuple(own.get(label) for label in labels) for model, own in found.items()}
    return draw(rows, k, variant, labels)
