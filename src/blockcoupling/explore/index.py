"""Payload that the page opens with: models, checkpoints, names, colours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

import blockcoupling
from blockcoupling.config.overlaps import CUMULATIVE, OVERLAPS
from blockcoupling.config.variants import DEFAULT_VARIANT, VARIANTS
from blockcoupling.errors import UserError
from blockcoupling.explore.course import EXCESS
from blockcoupling.figures.matrix import DIVERGING
from blockcoupling.figures.style import SEQUENTIAL, looks
from blockcoupling.statistics.points import CHECKPOINT, checkpoint_facts
from blockcoupling.statistics.predictors import LABELS
from blockcoupling.wording import words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

SHOWN = ("miscoupling", "svd", "tokenwise", "damage", "coupling", "score", "prompts", "predictors")
"""Kinds of entries that a view shows."""
_FACTS = ["family", "parameters", "depth", "dimension"]
_STOPS = 33


def index(catalogs: Sequence[Catalog], titles: Sequence[str]) -> dict[str, Any]:
    """Return what is in the catalogs, and how it is named and coloured.

    Args:
        catalogs: in the order in which they were named.
        titles: of each, for people.

    Returns:
        `catalogs`: title, k and variant of its statistics; `models`, the smallest first: catalog
        (its number), facts, checkpoints in the order of training, and `has`: kind → checkpoint →
        datasets; names, labels and colour scales.

    Raises:
        UserError: no catalog has anything to show.
    """
    if not any(each.metadata["kind"] in SHOWN for c in catalogs for each in c.entries.values()):
        raise UserError(
            f"nothing to explore: no catalog has entries of the kinds {', '.join(SHOWN)}"
        )
    models = [model for n, each in enumerate(catalogs) for model in _models(each, n)]
    models.sort(key=lambda each: (each["parameters"] or 0, each["depth"] or 0, each["model"]))
    diverging = _stops(DIVERGING)
    return {
        "version": blockcoupling.__version__,
        "catalogs": [
            {"title": title, **_chosen(each)} for title, each in zip(titles, catalogs, strict=True)
        ],
        "models": models,
        "variants": {
            name: {
                "words": words(name),
                "formula": each.formula,
                "centre": each.centre,
                "part": each.part,
            }
            for name, each in VARIANTS.items()
        },
        "overlaps": {
            name: {
                "label": each.label,
                "formula": each.formula,
                "asks": each.asks,
                "own": name in CUMULATIVE,  # the diagonal says something
            }
            for name, each in {**OVERLAPS, **CUMULATIVE}.items()
        },
        "labels": {**LABELS, EXCESS.name: EXCESS.label},
        "colours": {
            "diverging": diverging,
            "diverging_up": [[x, diverging[-1 - n][1]] for n, (x, _) in enumerate(diverging)],
            "sequential": _stops(SEQUENTIAL),
            "categories": [to_hex(look.color) for look in looks("abcdefg").values()],
        },
    }


def _stops(name: str) -> list[list[Any]]:
    places = np.linspace(0, 1, _STOPS)
    return [[round(float(x), 5), to_hex(mpl.colormaps[name](x))] for x in places]


def _chosen(catalog: Catalog) -> dict[str, Any]:
    """Return the K and the variant of the catalog's statistics, if it has them."""
    names = [n for n, each in catalog.entries.items() if each.metadata["kind"] == "predictors"]
    if not names:
        return {"k": None, "variant": DEFAULT_VARIANT}
    table = catalog[names[0]].read(columns=["k", "variant"])
    return {"k": int(table["k"].iloc[0]), "variant": str(table["variant"].iloc[0])}


def _models(catalog: Catalog, number: int) -> list[dict[str, Any]]:
    has: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for entry in catalog.entries.values():
        about = entry.metadata
        if about["kind"] in SHOWN and "model" in about and "checkpoint" in about:
            datasets = has[about["model"]][about["kind"]][about["checkpoint"]]
            datasets += [about["dataset"]] if "dataset" in about else []
    facts = _facts(catalog)
    found = []
    for model, kinds in has.items():
        own = facts[facts["model"] == model]
        known = set(own["checkpoint"])
        rest = sorted({each for kind in kinds.values() for each in kind} - known)
        table = own.sort_values(["step", "checkpoint"])
        checkpoints = table[["checkpoint", "step", "untrained", "final"]].to_dict("records")
        checkpoints += [{"checkpoint": each, "step": None} for each in rest]
        about = own.iloc[-1].to_dict() if len(own) else {}
        found.append(
            {
                "catalog": number,
                "model": model,
                **{name: _value(about.get(name)) for name in _FACTS},
                "checkpoints": [
                    {key: _value(value) for key, value in each.items()} for each in checkpoints
                ],
                "has": {kind: dict(of) for kind, of in kinds.items()},
            }
        )
    return found


def _facts(catalog: Catalog) -> pd.DataFrame:
    kinds = {str(each.metadata["kind"]) for each in catalog.entries.values()}
    if "model" not in kinds:
        return pd.DataFrame(columns=[*CHECKPOINT, "step", "untrained", "final", *_FACTS])
    return checkpoint_facts(catalog)


def _value(value: Any) -> Any:
    if value is None or pd.isna(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value
