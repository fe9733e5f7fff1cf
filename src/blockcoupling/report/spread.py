"""Where the variance comes from, and what the jobs cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.report.part import Part
from blockcoupling.report.section import Section
from blockcoupling.report.table import Table, plain, shown, tabulate
from blockcoupling.statistics.costs import by_rule
from blockcoupling.statistics.predictors import MEASURES
from blockcoupling.wording import MISSING, duration, number, significant

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog


def section(part: Part) -> Section:
    """Return the shares of the variance."""
    table = variance(part.catalog.one(kind="variance").read())
    return Section("Sources of variance", tables=[table], folded=True)


def variance(table: pd.DataFrame) -> Table:
    """Return a row for each measure."""
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
        "prompts of a dataset, and models' different responses to datasets (random effects, "
        "Henderson's method I; 0 % can be an estimate below 0). In brackets: how many of each; "
        "with few models or datasets their share is a rough estimate."
    )
    return Table(caption, ["measure", *columns], rows, ["measure"])


def costs(catalog: Catalog) -> list[Table]:
    """Return the costs of the jobs by step, then by step and model; empty if they are unknown."""
    found = catalog.search(kind="costs")
    table = catalog.one(kind="costs").read() if len(found) else pd.DataFrame()
    if table.empty:
        return []
    caption = (
        "Costs of the jobs of each step, one after another; CPU time is that of all threads, "
        "memory the peak resident size of a job. Of a job that was killed and run again, only the "
        "last run counts."
    )
    by_model = by_rule(table[table["model"].notna()], "model").to_dict("records")
    step, model = {"step": plain("rule")}, {"model": plain("model")}
    return [
        tabulate(by_rule(table).to_dict("records"), step | _COSTS, caption, words=["step"]),
        tabulate(
            by_model,
            step | model | _COSTS,
            "The same for each model.",
            words=["step", "model"],
            title=f"By step and model ({len(by_model)})",
        ),
    ]


_COSTS = {
    "jobs": plain("jobs"),
    "total time": shown("seconds", duration),
    "CPU time": shown("cpu_seconds", duration),
    "longest job": shown("longest", duration),
    "seconds per prompt": shown("seconds_per_prompt", significant),
    "peak memory/MB": lambda row: number(row["max_rss_mb"], 0),
}
