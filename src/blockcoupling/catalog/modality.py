"""The part of a catalog about language models, or about image models.

Their numbers are not comparable, so that no correlation includes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from blockcoupling.config.choices import Modality

if TYPE_CHECKING:
    from blockcoupling.catalog.catalog import Catalog

MODALITIES: tuple[Modality, ...] = get_args(Modality)

NAMES: Mapping[Modality, str] = {"text": "language models", "image": "image models"}
"""Names of the two kinds of models."""


def modalities(catalog: Catalog) -> list[Modality]:
    """Return the modalities of a catalog's models, in the order of :data:`MODALITIES`."""
    found = set(_of_models(catalog).values())
    return [each for each in MODALITIES if each in found]


def of_modality(catalog: Catalog, modality: Modality) -> Catalog:
    """Return the entries about models of one modality, and those about no model.

    The modality of an entry follows from its model's record; of prompts, from the models that were
    measured at them; of statistics and figures, from the facet `modality`. Entries without any of
    these belong to both.
    """
    models = {name for name, taken in _of_models(catalog).items() if taken == modality}
    about = {name: catalog.entries[name].metadata for name in catalog}
    datasets = {
        each["dataset"]
        for each in about.values()
        if each.get("model") in models and "dataset" in each
    }

    def belongs(facets: Mapping[str, Any]) -> bool:
        if "model" in facets:
            return facets["model"] in models
        if "dataset" in facets:
            return facets["dataset"] in datasets
        return str(facets.get("modality", modality)) == modality

    return catalog.only(name for name, facets in about.items() if belongs(facets))


def _of_models(catalog: Catalog) -> dict[str, Modality]:
    """Return each model's modality; records of older versions are of language models."""
    found = catalog.search(kind="model")
    return {
        str(found.entries[name].metadata["model"]): found[name].read().get("modality") or "text"
        for name in found
    }
