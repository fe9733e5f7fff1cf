"""The part of a catalog that is about models of one kind: those of texts, or those of images.

Their numbers are of different things, and stand in no correlation together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from blockcoupling.config.choices import Modality

if TYPE_CHECKING:
    from blockcoupling.catalog.catalog import Catalog

MODALITIES: tuple[Modality, ...] = get_args(Modality)

NAMES: Mapping[Modality, str] = {"text": "language models", "image": "image models"}
"""What the models of each are called."""


def modalities(catalog: Catalog) -> list[Modality]:
    """What the models of a catalog take, in the order of :data:`MODALITIES`."""
    found = set(_of_models(catalog).values())
    return [each for each in MODALITIES if each in found]


def of_modality(catalog: Catalog, modality: Modality) -> Catalog:
    """The entries of a catalog that are about models that take this, or about none.

    Entries of a model are told by its record, prompts by the models that were measured at them, and
    what was made of many models (statistics, figures) by its facet `modality`; without that facet
    it belongs to whatever there is.

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
    """What each model takes, by its name; records of older versions are of language models."""
    found = catalog.search(kind="model")
    return {
        str(found.entries[name].metadata["model"]): found[name].read().get("modality") or "text"
        for name in found
    }
