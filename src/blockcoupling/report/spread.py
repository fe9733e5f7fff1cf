"""Where the spread comes from, and what it all took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.report.table import Table
from blockcoupling.statistics.costs import by_rule
from blockcoupling.statistics.predictors import MEASURES
from blockcoupling.wording import MISSING, duration, number, significant

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


def variance(table: pd.DataFrame) -> Table:
    """Return the shares of the variance, a row for each measure."""
    parts = list(table["component"].drop_duplicates())
    levels = table.drop_duplicates("component").set_index("component")["levels"]
    rows = []
    for measure, label in MEASURES.items():
        own = table[table["measure"] == measure].set_index("component")
        if own.empty:
            continue
        shares = [f"{own['share'][c]:.0%}" if pd.notna(own["share"][c]) else MISSING for c in parts]
        rows.append([label, *shares])
    columns = [f"{c} ({levels[c]})" if c != "residual" else c for c in parts]
    caption = (
        "Shares of the variance of the final checkpoints' measurements: between models, datasets, "
        "prompts of a dataset, models' different response to datasets (random effects, Henderson's "
        "method I; 0 % may be an estimate below 0). In brackets, how many of each: with few models "
        "or datasets their share is a rough guess."
    )
    return Table(caption, ["measure", *columns], rows, ["measure"])


def costs(catalog: Catalog) -> list[Table]:
    """What the jobs took: of each step, then of each step and model. None where it is not known."""
    if not len(catalog.search(kind="costs")):
        return []
    table = catalog.one(kind="costs").read()
    if table.empty:
        return []
    caption = (
        "What the jobs of each step took, one after another; CPU time is that of all threads, "
        "memory the most that a job had resident at once. A job that was killed and run again "
        "counts its last run."
    )
    models = table[table["model"].notna()]
    return [
        Table(caption, ["step", *_COSTS], _cost_rows(by_rule(table)), ["step"]),
        Table(
            "The same for each model.",
            ["step", "model", *_COSTS],
            _cost_rows(by_rule(models, "model")),
            ["step", "model"],
            "By step and model",
        ),
    ]


_COSTS = ["jobs", "total time", "CPU time", "longest job", "seconds a prompt", "peak memory/MB"]


def _cost_rows(summed: pd.DataFrame) -> list[list[str]]:
    return [
        [
            *(str(row[name]) for name in ("rule", "model") if name in row),
            str(row["jobs"]),
            duration(row["seconds"]),
            duration(row["cpu_seconds"]),
            duration(row["longest"]),
            significant(row["seconds_per_prompt"]),
            number(row["max_rss_mb"], 0),
        ]
        for row in summed.to_dict("records")
    ]
