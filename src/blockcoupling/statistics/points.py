"""One row per checkpoint: its measurements and its facts, the points of every correlation.

Everything is read through the catalog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from blockcoupling.config.populations import FACTORS
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.statistics.factors import PREFIX
from blockcoupling.statistics.origins import origins
from blockcoupling.statistics.predictors import MEASURES, OPTIONAL, of_kind

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

CHECKPOINT = ["model", "checkpoint"]
PROMPT = [*CHECKPOINT, "dataset", "prompt"]
PAIR = [*PROMPT, "token_in", "token_out"]
_KEYS = {
    "coupling": PAIR,
    "spectra": PAIR,
    "overlap": PAIR,
    "whole_prompt": PROMPT,
    "weight_spectra": CHECKPOINT,
}
"""What a row of each kind of table belongs to."""


def prompt_values(catalog: Catalog, *, k: int = 10, variant: str = "frobenius") -> pd.DataFrame:
    """Return every measure of every prompt, at the prompt's last token.

    Args:
        catalog: entries of the kinds coupling, trajectory and spectra; overlap, whole_prompt and
            weight_spectra where measured.
        k: number of singular vectors of the coupling.
        variant: of mis-coupling.

    Returns:
        Columns model, checkpoint, dataset, prompt and :data:`MEASURES`. Coupling is minus the mean
        mis-coupling; ‖J‖ and the largest singular value are means over blocks. :data:`OPTIONAL`
        measures are NaN where they were not measured.

    Raises:
        UserError: the study has no such K or variant, or measured no last token.
        MeasurementError: a value is missing or not finite.
    """
    wanted = [("k", "==", k), ("variant", "==", variant)]
    coupling = catalog.search(kind="coupling").frame(filters=wanted)
    if coupling.empty:
        have = catalog.search(kind="coupling").frame(columns=["variant", "k"]).drop_duplicates()
        raise UserError(
            f"no coupling for K = {k}, variant {variant!r}; this study has K = "
            f"{', '.join(map(str, sorted(have['k'].unique())))} and variants "
            f"{', '.join(sorted(have['variant'].unique()))} (reduce.k, reduce.variants)"
        )
    regular = trajectories(catalog, coupling[PAIR])
    regular = regular[[*PROMPT, "last"]].join(_named(regular, "trajectory"))
    values = regular.drop(columns="last")
    filters = {"coupling": wanted, "overlap": wanted[:1]}
    for kind, keys in _KEYS.items():
        found = catalog.search(kind=kind)
        if not len(found):
            continue
        columns = [*keys, *(each.column or each.name for each in of_kind(kind))]
        table = found.frame(columns=columns, filters=filters.get(kind))
        own = table[keys].join(_named(table, kind))
        if keys == PAIR:
            own = at_last_token(own, regular[[*PROMPT, "last"]])
        unit = CHECKPOINT if keys == CHECKPOINT else PROMPT
        means = own.groupby(unit, as_index=False)[[each.name for each in of_kind(kind)]].mean()
        values = values.merge(means, on=unit, how="left")
    values = values.reindex(columns=[*PROMPT, *MEASURES])
    demanded = [name for name in MEASURES if name not in OPTIONAL]
    bad = values[~np.isfinite(values[demanded].to_numpy(float)).all(axis=1)]
    if len(bad):
        row = bad.iloc[0]
        raise MeasurementError(
            f"{len(bad)} of {len(values)} prompts lack a finite measure at their last token, e.g. "
            f"{row['model']} {row['checkpoint']}, {row['dataset']} prompt {row['prompt']}: "
            f"{', '.join(m for m in demanded if not np.isfinite(row[m]))}"
        )
    return values.sort_values(PROMPT, ignore_index=True)


def _named(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the measurements of a kind by name."""
    return pd.DataFrame(
        {each.name: each.sign * table[each.column or each.name] for each in of_kind(kind)}
    )


def trajectories(catalog: Catalog, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the trajectory of the token at which each prompt is measured.

    Args:
        catalog: entries of the kind trajectory.
        pairs: columns model, checkpoint, dataset, prompt, token_in, token_out: what was measured.

    Returns:
        The table of trajectories, a row a prompt: that of its last token, or else of the only
        measured one, as in :func:`at_last_token`. A mean over patches has no trajectory: the row
        is that of the last patch. `last` is the token of the measurements.
    """
    ends = catalog.search(kind="trajectory").frame(filters=[("is_last", "==", True)])
    ends = ends.rename(columns={"token": "last"})
    measured = at_last_token(pairs.drop_duplicates(), ends[[*PROMPT, "last"]])
    measured = measured[[*PROMPT, "token_in"]].rename(columns={"token_in": "last"})
    own = ends.merge(measured, on=[*PROMPT, "last"])
    if len(own) == len(ends):
        return own
    every = catalog.search(kind="trajectory").frame().rename(columns={"token": "last"})
    own = every.merge(measured, on=[*PROMPT, "last"])
    means = measured[measured["last"] < 0].merge(ends.drop(columns="last"), on=PROMPT)
    return pd.concat([own, means], ignore_index=True)


def at_last_token(table: pd.DataFrame, last: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of each prompt's last token (token_in = token_out = last).

    Where the last token was not measured but one other was (an image's class token, or else the
    mean over its patches), the rows of that one.

    Args:
        table: columns model, checkpoint, dataset, prompt, token_in, token_out, ….
        last: columns model, checkpoint, dataset, prompt, last (number of the last token).

    Raises:
        UserError: there are no such rows.
    """
    found = table.merge(last, on=PROMPT)
    own = found[found["token_in"] == found["token_out"]]
    kept = own[own["token_in"] == own["last"]]
    others = own.merge(kept[PROMPT].drop_duplicates(), on=PROMPT, how="left", indicator="_from")
    others = others[others["_from"] == "left_only"].drop(columns="_from")
    # Where both were measured, the class token goes before the mean over patches.
    single = others["token_in"] >= 0
    others = others[single | ~single.groupby([others[key] for key in PROMPT]).transform("any")]
    alone = others.groupby(PROMPT)["token_in"].transform("nunique") == 1
    kept = pd.concat([kept, others[alone]], ignore_index=True) if alone.any() else kept
    if kept.empty:
        raise UserError(
            "no prompt was measured at its last token, which figures and correlations are about: "
            "let extract.tokens include `last`"
        )
    return kept.drop(columns="last")


def checkpoint_facts(catalog: Catalog) -> pd.DataFrame:
    """Return the facts of the model records, one row per checkpoint.

    Returns:
        Columns model, checkpoint, origin, weights (see `statistics.origins`), family, base, step,
        parameters, log_parameters (base 10), depth, dimension, tokens (seen in training),
        log_tokens (base 10; empty where no token was seen), untrained and final. Facts that a
        record lacks are missing. `final` marks the last trained checkpoint of each model: the one
        without a step (its released weights), or else the one with the largest step. Members of a
        population also have factor.KEY for each key of `train` that was set for them.
    """
    records = catalog.search(kind="model").frame()
    records = records.rename(columns={"name": "model", "blocks": "depth"})
    numbers = ["step", "parameters", "depth", "dimension", "tokens"]
    facts = records.reindex(columns=[*CHECKPOINT, "family", "base", "untrained", *numbers])
    facts[numbers] = facts[numbers].apply(pd.to_numeric)
    for name in ("parameters", "tokens"):
        facts[f"log_{name}"] = np.log10(facts[name].where(facts[name] > 0).astype(float))
    facts["untrained"] = (
        facts["step"].eq(0) | facts["checkpoint"].eq("init") | facts["untrained"].eq(True)
    )
    facts[["origin", "weights"]] = origins(records, facts["untrained"])[["origin", "weights"]]
    facts["final"] = False
    order = facts.assign(step=facts["step"].fillna(np.inf), main=facts["checkpoint"].eq("main"))
    order = order[~order["untrained"]].sort_values(["step", "main", "checkpoint"])
    facts.loc[order.groupby("model")["step"].tail(1).index, "final"] = True
    factors = [given.get(FACTORS) or {} for given in given_facts(records)]
    facts = facts.join(pd.DataFrame(factors, index=records.index).add_prefix(PREFIX))
    return facts.sort_values(["model", "step", "checkpoint"], ignore_index=True)


def given_facts(records: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the `facts` that sections of models added to their records; {} where none."""
    given = records["facts"] if "facts" in records else [None] * len(records)
    return [facts if isinstance(facts, dict) else {} for facts in given]


def mean_over_prompts(
    values: pd.DataFrame, by: list[str] | None = None, measures: list[str] | None = None
) -> pd.DataFrame:
    """Average over the prompts of each dataset, then over datasets, with standard errors.

    Args:
        values: one row per prompt, with columns dataset, prompt, `by` and `measures`.
        by: columns that identify a row of the result (default: a checkpoint).
        measures: columns to average (default: :data:`MEASURES`).

    Returns:
        Columns `by`, each measure m with its m_se, datasets and prompts (their numbers). With
        n_d prompts in dataset d of D, m_se = sqrt(sum_d s_d² / n_d) / D, where s_d is the sample
        standard deviation: the error over prompts, for fixed datasets. It is missing where a
        dataset has one prompt.
    """
    by = CHECKPOINT if by is None else by
    measures = list(MEASURES) if measures is None else measures
    grouped = values.groupby([*by, "dataset"])
    means, errors = grouped[measures].mean(), grouped[measures].sem() ** 2
    result = means.groupby(level=by).mean()
    number = means.groupby(level=by).size()
    # A missing error stays missing: a sum that skips it would be too small.
    summed = errors.groupby(level=by).sum().where(~errors.isna().groupby(level=by).any())
    spread = summed.pow(0.5).div(number, axis=0).add_suffix("_se")
    table = result.join(spread)
    table["datasets"] = number
    table["prompts"] = grouped.size().groupby(level=by).sum()
    pairs = [name for measure in measures for name in (measure, f"{measure}_se")]
    return table[[*pairs, "datasets", "prompts"]].reset_index()


def points(
    values: pd.DataFrame, facts: pd.DataFrame, measures: list[str] | None = None
) -> pd.DataFrame:
    """Return one row per checkpoint: facts, and measures with standard errors.

    Args:
        values: as :func:`prompt_values` returns them.
        facts: as :func:`checkpoint_facts` returns them.
        measures: columns of `values` (default: :data:`MEASURES`).

    Raises:
        UserError: a measured checkpoint has no model record.
    """
    means = mean_over_prompts(values, measures=measures)
    table = facts.merge(means, on=CHECKPOINT, how="right", indicator="_from")
    if (unknown := table[table["_from"] != "both"]).size:
        names = ", ".join(sorted(unknown["model"] + " " + unknown["checkpoint"]))
        raise UserError(f"no model record in the catalog for: {names}")
    table = table.drop(columns="_from")
    return table.sort_values(["model", "step", "checkpoint"], ignore_index=True)
