"""The models, prompts and scores of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.report.part import Part
from blockcoupling.report.section import Section
from blockcoupling.report.table import Cells, Table, plain, shown, tabulate, text_of
from blockcoupling.wording import count, number, words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


def section(part: Part) -> Section:
    """Return the tables of models and prompts."""
    tables = [models(part.catalog, part.points), prompts(part.catalog)]
    return Section("Models and prompts", tables=tables, folded=True)


def models(catalog: Catalog, points: pd.DataFrame) -> Table:
    """Return what is known of each model, the smallest first."""
    records = catalog.search(kind="model").frame().set_index(["name", "checkpoint"])
    rows = []
    for model, own in points.groupby("model", sort=False):
        last = own.iloc[-1]
        record = records.loc[(model, last["checkpoint"])]
        place = next((record[key] for key in ("id", "source") if pd.notna(record.get(key))), None)
        about = {"architecture": record.get("architecture"), "from": place}
        about |= {"checkpoints": _listed(own["checkpoint"]), "tokens": own["tokens"].max()}
        rows.append(last.to_dict() | about)
    cells: Cells = {
        "model": plain("model"),
        "family": shown("family", text_of),
        "architecture": shown("architecture", text_of),
        "parameters": shown("parameters", count),
        "L": lambda row: number(row["depth"], 0),
        "d": lambda row: number(row["dimension"], 0),
        "training tokens": shown("tokens", count),
        "checkpoints": plain("checkpoints"),
        "source": shown("from", text_of),
    }
    text = ["model", "family", "architecture", "checkpoints", "source"]
    return tabulate(rows, cells, "Models, the smallest first.", words=text)


def prompts(catalog: Catalog) -> Table:
    """Return what each dataset holds: texts, or images."""
    found = catalog.search(kind="prompts")
    rows = []
    for name in found:
        content = found[name].read()
        row = {"dataset": found[name].metadata.get("dataset", name), "n": len(content)}
        if "image" in content:
            row["classes"] = content["class"].nunique() if "class" in content else None
            row["source"] = content["source"].iloc[0] if "source" in content else None
        else:
            lengths = content["text"].str.len()
            row["characters"] = f"{lengths.min()} to {lengths.max()}"
            row["first"] = _shortened(content["text"].iloc[0])
        rows.append(row)
    cells: Cells = {"dataset": plain("dataset")}
    if any("first" in row for row in rows):
        cells |= {"prompts": plain("n"), "characters": plain("characters"), "first": plain("first")}
        return tabulate(rows, cells, "Prompts.", words=["dataset", "first"])
    cells |= {"images": plain("n"), "classes": shown("classes", text_of)}
    cells |= {"source": shown("source", text_of)}
    return tabulate(rows, cells, "Images.", words=["dataset", "source"])


def score_sources(scores: pd.DataFrame) -> Table:
    """Return where each score comes from."""
    sources = scores.groupby(["score", "metric", "source", "n"], dropna=False).size()
    cells = {
        "score": plain("score"),
        "metric": shown("metric", words),
        "n": lambda row: count(row["n"] or None),
        "checkpoints": plain("checkpoints"),
        "source": shown("source", text_of),
    }
    rows = sources.rename("checkpoints").reset_index().to_dict("records")
    text = ["score", "metric", "source"]
    return tabulate(rows, cells, "Sources of the scores.", words=text)


def _listed(names: pd.Series) -> str:
    if len(names) <= 8:
        return ", ".join(names)
    return f"{names.iloc[0]}, {names.iloc[1]} … {names.iloc[-1]} ({len(names)})"


def _shortened(text: str, length: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
