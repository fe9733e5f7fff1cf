"""One row per checkpoint: what was measured on it, and what is known about it.

These rows are the points of every correlation. Everything is read through the catalog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def prompt_values(catalog: Catalog, *, k: int = 10, variant: str = "frobenius") -> pd.DataFrame:
    """Return every measure of every prompt, at the prompt's last token.

    Args:
        catalog: has entries of the kinds coupling, trajectory and spectra; overlap, whole_prompt
            and weight_spectra where measured.
        k: how many singular vectors the coupling is of.
        variant: which mis-coupling.

    Returns:
        Columns model, checkpoint, dataset, prompt and :data:`MEASURES`. Coupling is minus the mean
        mis-coupling; ‖J‖ and the largest singular value are means over blocks. Those that are
        :data:`OPTIONAL` are NaN where they were not measured.

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
    spectra = catalog.search(kind="spectra").frame(
        columns=[*PAIR, *(each.column or each.name for each in of_kind("spectra"))]
    )
    tables = {"coupling": coupling, "spectra": spectra}
    shared = catalog.search(kind="overlap")
    if len(shared):
        tables["overlap"] = shared.frame(filters=[("k", "==", k)])
    for kind, table in tables.items():
        own = at_last_token(table[PAIR].join(_named(table, kind)), regular[[*PROMPT, "last"]])
        means = own.groupby(PROMPT, as_index=False)[[each.name for each in of_kind(kind)]].mean()
        values = values.merge(means, on=PROMPT, how="left")
    whole = catalog.search(kind="whole_prompt")
    if len(whole):
        table = whole.frame()
        own = table[PROMPT].join(_named(table, "whole_prompt"))
        values = values.merge(own, on=PROMPT, how="left")
    weights = catalog.search(kind="weight_spectra")
    if len(weights):
        table = weights.frame()
        own = table[CHECKPOINT].join(_named(table, "weight_spectra"))
        values = values.merge(
            own.groupby(CHECKPOINT, as_index=False).mean(), on=CHECKPOINT, how="left"
        )
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
    """Return the trajectory of the token that each prompt is told by.

    Args:
        catalog: has entries of the kind trajectory.
        pairs: columns model, checkpoint, dataset, prompt, token_in, token_out: what was measured.

    Returns:
        The table of trajectories, a row a prompt: that of its last token, or else of the only one
        that was measured, as :func:`at_last_token` has it; of a mean over patches, which has no
        trajectory, that of the last patch. `last` says which token the measurements are at.

    """
    ends = catalog.search(kind="trajectory").frame(filters=[("is_last", "==", True)])
    ends = ends.rename(columns={"token": "last"})
    told = at_last_token(pairs.drop_duplicates(), ends[[*PROMPT, "last"]])
    told = told[[*PROMPT, "token_in"]].rename(columns={"token_in": "last"})
    own = ends.merge(told, on=[*PROMPT, "last"])
    if len(own) == len(ends):
        return own
    every = catalog.search(kind="trajectory").frame().rename(columns={"token": "last"})
    own = every.merge(told, on=[*PROMPT, "last"])
    means = told[told["last"] < 0].merge(ends.drop(columns="last"), on=PROMPT)
    return pd.concat([own, means], ignore_index=True)


def at_last_token(table: pd.DataFrame, last: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of a table by token pair that are about each prompt's last token, to itself.

    Of a prompt whose last token was not measured, but one other was (an image's class token, or
    else the mean over its patches), those that are about that one.

    Args:
        table: columns model, checkpoint, dataset, prompt, token_in, token_out, ….
        last: columns model, checkpoint, dataset, prompt, last: which token that is.

    Raises:
        UserError: there are no such rows.

    """
    found = table.merge(last, on=PROMPT)
    own = found[found["token_in"] == found["token_out"]]
    kept = own[own["token_in"] == own["last"]]
    others = own.merge(kept[PROMPT].drop_duplicates(), on=PROMPT, how="left", indicator="_from")
    others = others[others["_from"] == "left_only"].drop(columns="_from")
    # A mean over patches gives way to the class token beside it.
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
    """Return what the model records say, one row per checkpoint.

    Returns:
        Columns model, checkpoint, origin, weights (see `statistics.origins`), family, base, step,
        parameters, log_parameters (base 10), depth, dimension, tokens (seen in training),
        log_tokens (base 10; empty where no token was seen), untrained and final. What a record does
        not say is missing here. `final` marks the last trained checkpoint of each model: the one
        without a step (its released weights), or else the one with the largest step. Of members of
        a population also factor.KEY for each key of `train` that they were given a value of.

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
    facts = facts.join(_factors(records))
    return facts.sort_values(["model", "step", "checkpoint"], ignore_index=True)


def _factors(records: pd.DataFrame) -> pd.DataFrame:
    """Return what members of populations were given, a column a factor."""
    told = records["facts"] if "facts" in records else pd.Series(None, records.index, dtype=object)
    given = [(each or {}).get(FACTORS) or {} for each in told.where(told.notna(), None)]
    return pd.DataFrame(given, index=records.index).add_prefix(PREFIX)


def mean_over_prompts(
    values: pd.DataFrame, by: list[str] | None = None, measures: list[str] | None = None
) -> pd.DataFrame:
    """Average over the prompts of each dataset, then over datasets, with standard errors.

    Args:
        values: one row per prompt, with columns dataset, prompt, `by` and `measures`.
        by: what a row of the result is (default: a checkpoint).
        measures: which columns are averaged (default: :data:`MEASURES`).

    Returns:
        Columns `by`, each measure m with its m_se, datasets and prompts (their numbers). With
        n_d prompts in dataset d of D, m_se = sqrt(sum_d s_d² / n_d) / D, where s_d is the sample
        standard deviation: the error over prompts, the datasets being given. It is missing where a
        dataset has one prompt.

    """
    by = CHECKPOINT if by is None else by
    measures = list(MEASURES) if measures is None else measures
    grouped = values.groupby([*by, "dataset"])
    means, errors = grouped[measures].mean(), grouped[measures].sem() ** 2
    result = means.groupby(level=by).mean()
    number = means.groupby(level=by).size()
    # A missing error has to stay missing: a sum that skips it would be too small.
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
    """Return one row per checkpoint: measures with standard errors, beside the facts.

    Args:
        values: as :func:`prompt_values` returns them.
        facts: as :func:`checkpoint_facts` returns them.
        measures: which columns of `values` (default: :data:`MEASURES`).

    Raises:
        UserError: a checkpoint was measured that has no model record.

    """
    means = mean_over_prompts(values, measures=measures)
    table = facts.merge(means, on=CHECKPOINT, how="right", indicator="_from")
    if (unknown := table[table["_from"] != "both"]).size:
        names = ", ".join(sorted(unknown["model"] + " " + unknown["checkpoint"]))
        raise UserError(f"no model record in the catalog for: {names}")
    table = table.drop(columns="_from")
    return table.sort_values(["model", "step", "checkpoint"], ignore_index=True)
