"""Payload of one model: every measurement and score at each of its checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from blockcoupling.statistics.points import PAIR, PROMPT, at_last_token, trajectories
from blockcoupling.statistics.predictors import Predictor, of_kind
from blockcoupling.statistics.scores import read_scores

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

EXCESS = Predictor("excess", "coupling above chance", "coupling")
_BY = {"coupling": ["variant", "k"], "overlap": ["k"]}
_KINDS = ("coupling", "overlap", "trajectory", "spectra", "whole_prompt")


def course(catalog: Catalog, model: str) -> dict[str, Any]:
    """Return means over prompts of one model, with standard errors, at each prompt's last token.

    Returns:
        `measures`: columns measure, checkpoint, dataset, variant, k, mean, se, prompts (variant and
        k missing where a measure has none); `scores`: columns score, metric, checkpoint, value,
        standard_error.

    Raises:
        UserError: a table cannot be read.
    """
    own, found = catalog.search(model=model), []
    kinds = {each.metadata["kind"] for each in own.entries.values()}
    for name in sorted({str(each.metadata.get("dataset", "")) for each in own.entries.values()}):
        if name and "coupling" in kinds:
            found += _of_dataset(own.search(dataset=name))
    scores = read_scores(own)
    columns = ["score", "metric", "checkpoint", "value", "standard_error"]
    return {
        "measures": pd.concat(found, ignore_index=True) if found else pd.DataFrame(),
        "scores": scores[columns],
    }


def _of_dataset(own: Catalog) -> list[pd.DataFrame]:
    kinds = {str(each.metadata["kind"]) for each in own.entries.values()}
    if not {"coupling", "trajectory"} <= kinds:
        return []
    coupling = own.search(kind="coupling").frame()
    regular = trajectories(own, coupling[PAIR].drop_duplicates())
    read = {"coupling": coupling, "trajectory": regular}
    found = []
    for kind in (each for each in _KINDS if each in kinds):
        table = read[kind] if kind in read else own.search(kind=kind).frame()
        if set(PAIR) <= set(table):
            table = at_last_token(table, regular[[*PROMPT, "last"]])
        measures = [*of_kind(kind), *([EXCESS] if kind == "coupling" else [])]
        for measure in measures:
            column = measure.column or measure.name
            if column in table:
                found.append(_means(table, measure, column, _BY.get(kind, [])))
    return found


def _means(table: pd.DataFrame, measure: Predictor, column: str, by: list[str]) -> pd.DataFrame:
    keys = ["checkpoint", "dataset", *by]
    values = table[[*keys, "prompt"]].assign(value=measure.sign * table[column])
    # Tables of blocks: first the mean over the blocks of a prompt.
    of_prompts = values.groupby([*keys, "prompt"], as_index=False)["value"].mean()
    means = of_prompts.groupby(keys, as_index=False)["value"].agg(["mean", "sem", "count"])
    means = means.rename(columns={"sem": "se", "count": "prompts"})
    for name in ("variant", "k"):
        if name not in means:
            means[name] = None
    return means.assign(measure=measure.name)
