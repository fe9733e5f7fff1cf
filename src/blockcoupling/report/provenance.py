"""Provenance of the results, and code that loads them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.catalog.place import Place
from blockcoupling.report.correlated import CORRECTIONS
from blockcoupling.report.table import Table
from blockcoupling.wording import words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_IDENTITY = ("model", "checkpoint", "dataset")


def attributes(catalog: Catalog, points: pd.DataFrame) -> pd.DataFrame:
    """Return the attributes of one extraction store per model, of its last checkpoint."""
    rows = []
    for model, own in points.groupby("model", sort=False):
        stores = catalog.search(kind="svd", model=str(model), checkpoint=own["checkpoint"].iloc[-1])
        if len(stores):
            attributes = stores[next(iter(stores))].read().attrs
            rows.append(
                {"model": model, **{k: v for k, v in attributes.items() if k not in _IDENTITY}}
            )
    return pd.DataFrame(rows).map(
        lambda value: "none" if pd.isna(value) or value == "" else str(value)
    )


def provenance(
    measured: pd.DataFrame, catalog: Catalog, correlation: pd.DataFrame
) -> list[tuple[str, str]]:
    """Return what all measurements have in common, by name."""
    same = [name for name in _about(measured) if measured[name].nunique() == 1]
    listed = [(words(name), str(measured[name].iloc[0])) for name in sorted(same)]
    for row in correlation.head(1).to_dict("records"):
        listed += [
            ("bootstrap", f"{row['resamples']} resamples, seed {row['seed']}"),
            ("correction for multiple comparisons", CORRECTIONS[row["correction"]]),
        ]
    makers = ", ".join(map(str, catalog.facets().get("created_by", [])))
    return [*listed, ("catalog entries", f"{len(catalog)}, created by {makers}")]


def stores(measured: pd.DataFrame) -> Table | None:
    """Return what differs between the models' stores, if anything."""
    differing = [name for name in _about(measured) if measured[name].nunique() > 1]
    if not differing:
        return None
    rows = measured[["model", *differing]].map(_shortened).to_numpy().tolist()
    columns = ["model", *map(words, differing)]
    return Table("Settings that differ between models.", columns, rows, columns)


def _shortened(text: str) -> str:
    """Return the beginning of a digest, and any other text as it is."""
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{64}", text) else text


def _about(measured: pd.DataFrame) -> list[str]:
    return [str(name) for name in measured.columns if name != "model"]


def snippet(
    catalog: Catalog, point: pd.Series, catalog_path: str, modality: str | None = None
) -> str:
    """Return Python code that loads what was measured on the checkpoint of a point.

    Args:
        catalog: of the study.
        point: model and checkpoint.
        catalog_path: what the code opens.
        modality: what the model takes, where a study has others.
    """
    own = catalog.search(kind="miscoupling", model=point["model"], checkpoint=point["checkpoint"])
    name = next(iter(own))
    # Results may be on another disk than the catalog.
    inside = Place.around(catalog_path).holds(str(catalog.path(name)))
    # Quoted: names may come from others, and this code will be pasted.
    opened = json.dumps(catalog_path) + ("" if inside else ", allow_outside=True")
    of = "" if modality is None else f', modality="{modality}"'
    return f"""import blockcoupling as bc

catalog = bc.open_catalog({opened})
print(catalog)             # its entries
print(catalog.facets())    # search terms

# One row per checkpoint (pandas).
points = catalog.one(kind="predictors"{of}).read()

# One row per prompt, variant and K, of all checkpoints of a model.
coupling = catalog.search(kind="coupling", model={json.dumps(str(point["model"]))}).frame()

# Block by block (xarray, lazy).
matrices = catalog[{json.dumps(name)}].read()
"""
