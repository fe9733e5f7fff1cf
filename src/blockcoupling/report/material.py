"""What a study is about: models, prompts, scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.report.table import Table, said
from blockcoupling.wording import count, number, words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


def models(catalog: Catalog) -> Table:
    """Return what is known of each model."""
    points = catalog.one(kind="predictors").read().sort_values(["parameters", "model", "step"])
    records = catalog.search(kind="model").frame()
    places = records.set_index(["name", "checkpoint"])
    rows = []
    for model, own in points.groupby("model", sort=False):
        last = own.iloc[-1]
        record = places.loc[(model, last["checkpoint"])]
        place = next((record[key] for key in ("id", "source") if pd.notna(record.get(key))), None)
        rows.append(
            [
                str(model),
                said(last["family"]),
                said(record.get("architecture")),
                count(last["parameters"]),
                number(last["depth"], 0),
                number(last["dimension"], 0),
                count(own["tokens"].max()),
                _listed(own["checkpoint"]),
                said(place),
            ]
        )
    columns = ["model", "family", "architecture", "parameters", "L", "d", "training tokens"]
    columns += ["checkpoints", "from"]
    plain = ["model", "family", "architecture", "checkpoints", "from"]
    return Table("Models, the smallest first.", columns, rows, plain)


def prompts(catalog: Catalog) -> Table:
    """Return what each dataset holds."""
    rows = []
    found = catalog.search(kind="prompts")
    for name in found:
        content = found[name].read()
        if "image" in content:
            return _images(catalog)
        lengths = content["text"].str.len()
        rows.append(
            [
                str(found[name].metadata.get("dataset", name)),
                str(len(content)),
                f"{lengths.min()} to {lengths.max()}",
                _shortened(content["text"].iloc[0]),
            ]
        )
    columns = ["dataset", "prompts", "characters", "the first one"]
    return Table("Prompts.", columns, rows, ["dataset", "the first one"])


def _images(catalog: Catalog) -> Table:
    """Return what each dataset of images holds."""
    rows = []
    found = catalog.search(kind="prompts")
    for name in found:
        content = found[name].read()
        classes = content["class"].nunique() if "class" in content else None
        source = content["source"].iloc[0] if "source" in content else None
        dataset = str(found[name].metadata.get("dataset", name))
        rows.append([dataset, str(len(content)), said(classes), said(source)])
    columns = ["dataset", "images", "classes", "from"]
    return Table("Images.", columns, rows, ["dataset", "from"])


def score_sources(scores: pd.DataFrame) -> Table:
    """Return where each score comes from."""
    sources = scores.groupby(["score", "metric", "source", "n"], dropna=False).size()
    rows = [
        [
            row["score"],
            words(row["metric"]),
            count(row["n"] or None),
            str(row["of"]),
            said(row["source"]),
        ]
        for row in sources.rename("of").reset_index().to_dict("records")
    ]
    columns = ["score", "metric", "n", "checkpoints", "source"]
    return Table("Where scores come from.", columns, rows, ["score", "metric", "source"])


def _listed(names: pd.Series) -> str:
    if len(names) <= 8:
        return ", ".join(names)
    return f"{names.iloc[0]}, {names.iloc[1]} … {names.iloc[-1]} ({len(names)})"


def _shortened(text: str, length: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
