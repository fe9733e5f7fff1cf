"""What the jobs of a study took: time, processor and memory, from its benchmark files.

A benchmark file is a table of one row (`s`, `cpu_time`, `max_rss`, `mean_load`, …), and its path
says what it is of: STEP/MODEL/CHECKPOINT/DATASET.tsv, as far as a step has these.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from blockcoupling.config.steps import Step, steps
from blockcoupling.statistics.tables import write_tables

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

logger = logging.getLogger(__name__)

WHOSE = ("model", "checkpoint", "dataset")
_MEASURED = {
    "s": "seconds",
    "cpu_time": "cpu_seconds",
    "mean_load": "mean_load_percent",
    "max_rss": "max_rss_mb",
}
_FACTS = ("parameters", "blocks", "dimension")
COLUMNS = ("rule", *WHOSE, *_MEASURED.values(), "prompts", "seconds_per_prompt", *_FACTS)


def write_costs(benchmarks: Path, catalog: Catalog, out: Path) -> None:
    """Write what every job took as a Parquet table; see `costs`."""
    table = costs(benchmarks, catalog)
    if table.empty:
        logger.warning("there are no benchmark files of this study's jobs in %s", benchmarks)
    write_tables({"costs": table}, out)


def costs(benchmarks: Path, catalog: Catalog) -> pd.DataFrame:
    """Read what every job took.

    Files of models, checkpoints and datasets that are not in the catalog (from an earlier study in
    the same place) are skipped.

    Args:
        benchmarks: directory of the benchmark files.
        catalog: has the entries of the kinds model and prompts.

    Returns:
        One row a job, in the order of the steps, then by name: rule, model, checkpoint, dataset;
        seconds (wall clock), cpu_seconds (of all threads), mean_load_percent (100: one core busy),
        max_rss_mb (the most memory resident, MB of 2^20 bytes), NaN where a job ended before it was
        looked at; of jobs that go through a dataset its prompts and seconds_per_prompt, starting up
        included; of jobs with a model its parameters, blocks and dimension (of a training, those of
        the last checkpoint).
    """
    facts, prompts = _facts(catalog), _prompts(catalog)
    known = {"model": {model for model, _ in facts}, "dataset": set(prompts)}
    rows = []
    for step in counted():
        of_step = benchmarks / step.name
        for file in sorted(of_step.glob("/".join("*" * len(step.per)) + ".tsv")):
            names = [*file.relative_to(of_step).parts[:-1], file.stem]
            job = dict(zip(step.per, names, strict=True))
            if any(job[part] not in known[part] for part in step.per if part in known):
                continue
            if "checkpoint" in job and (job["model"], job["checkpoint"]) not in facts:
                continue
            rows += [_row(step, job, measured, facts, prompts) for measured in _read(file)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    words, counts = ["rule", *WHOSE], ["prompts", *_FACTS]
    numbers = [name for name in COLUMNS if name not in words and name not in counts]
    types = dict.fromkeys(words, "string") | dict.fromkeys(counts, "Int64")
    return table.astype(types | dict.fromkeys(numbers, "float64"))


def counted() -> list[Step]:
    """The steps whose jobs belong to a model or a dataset."""
    return [step for step in steps() if {"model", "dataset"} & set(step.per)]


def by_rule(table: pd.DataFrame, *further: str) -> pd.DataFrame:
    """Sum the jobs of each rule up, or of each rule and what else is named, in their order.

    Returns:
        `rule` and `further`, jobs, seconds and cpu_seconds of all of them, longest (seconds of the
        longest), seconds_per_prompt (median of those that have one), max_rss_mb of the largest.
    """
    groups = table.groupby(["rule", *further], sort=False, dropna=False)
    return groups.agg(
        jobs=("seconds", "size"),
        seconds=("seconds", "sum"),
        cpu_seconds=("cpu_seconds", "sum"),
        longest=("seconds", "max"),
        seconds_per_prompt=("seconds_per_prompt", "median"),
        max_rss_mb=("max_rss_mb", "max"),
    ).reset_index()


def _row(
    step: Step,
    job: dict[str, str],
    measured: dict[Any, Any],
    facts: dict[tuple[str, str], dict[str, Any]],
    prompts: dict[str, int],
) -> dict[str, Any]:
    row: dict[str, Any] = {"rule": step.name, **job}
    row |= {name: measured.get(column) for column, name in _MEASURED.items()}
    if "dataset" in job and step.prompts is None:
        row["prompts"] = prompts[job["dataset"]]
        row["seconds_per_prompt"] = row["seconds"] / row["prompts"]
    own = [found for place, found in facts.items() if place[0] == job.get("model")]
    if "checkpoint" in job:
        own = [facts[job["model"], job["checkpoint"]]]
    return row | {name: own[-1].get(name) for name in _FACTS if own}


def _read(file: Path) -> list[dict[Any, Any]]:
    """The rows of a benchmark file; NA, of a job that ended before it was looked at, as NaN."""
    return pd.read_csv(file, sep="\t", na_values=["NA", "-"]).to_dict("records")


def _facts(catalog: Catalog) -> dict[tuple[str, str], dict[str, Any]]:
    """The record of every model and checkpoint, in the order of training."""
    records = [catalog[name].read() for name in catalog.search(kind="model")]
    records.sort(key=lambda record: -1 if record.get("step") is None else record["step"])
    return {(record["name"], record["checkpoint"]): record for record in records}


def _prompts(catalog: Catalog) -> dict[str, int]:
    """How many prompts every dataset has."""
    found = catalog.search(kind="prompts")
    return {str(found[name].metadata["dataset"]): len(found[name].read()) for name in found}
