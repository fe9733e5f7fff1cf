"""Ablation damage against coupling and baseline predictors, one checkpoint at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from blockcoupling.config.damage import DISPLACEMENTS, TREATMENTS
from blockcoupling.errors import UserError
from blockcoupling.lab.ablation.answers import answers
from blockcoupling.lab.ablation.baselines import Baseline, at_places, baselines, of_one
from blockcoupling.lab.ablation.interaction import interaction
from blockcoupling.lab.ablation.shifts import shift_test
from blockcoupling.progress import Progress
from blockcoupling.statistics.multiplicity import adjust
from blockcoupling.statistics.points import CHECKPOINT, checkpoint_facts
from blockcoupling.statistics.regression import FEWEST
from blockcoupling.statistics.tables import write_tables

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from blockcoupling.catalog import Catalog

OUTCOMES = ("kl", "loss_change", "interaction", "gain", "accuracy_drop", "answer_loss_change")
"""Damage at prompts (KL, nats a token), on held-out text (change of loss, nats a token), and what
`mean_damage` derives."""

PROMPT, HELDOUT, ANSWER = "prompt", "heldout", "answer"
KEYS = ["treatment", "block", "block_other"]
ONE, TWO = "one", "two"
POSITION = "position"
"""Mean depth of the changed blocks, and its square about the middle: two covariates."""

_GIVEN: Mapping[str, Sequence[tuple[str, ...]]] = {
    TWO: [
        *((), ("distance",), ("distance", "block_influence")),
        ("distance", "block_influence", POSITION),
    ],
    ONE: [(), ("block_influence",), ("block_influence", POSITION)],
}
_OF = [*CHECKPOINT, "treatment", "blocks"]
_OVER_MODELS = (
    "models",
    "mean_rho",
    "mean_rho_low",
    "mean_rho_high",
    "mean_rho_p",
    "positive",
    "sign_p",
)

HIGH_IS_SAFE = ("excess", "output_overlap", "input_overlap", "composition", "depth")
"""Predictors whose high values say that a change is harmless."""


def write_damage_statistics(
    catalog: Catalog, out: Path, *, k: int, variant: str, ks: Sequence[int]
) -> dict[str, Path]:
    """Write the damage with its predictors by blocks, and their correlations.

    Args:
        catalog: entries of the kinds damage, miscoupling, spectra, svd, model.
        out: the table of correlations; `damage_pairs.parquet` is written to the same folder.
        k: of the headline mis-coupling.
        variant: of the headline mis-coupling.
        ks: further K of that variant.

    Returns:
        The files by kind, `damage_statistics` and `damage_pairs`.

    Raises:
        UserError: no damage was measured.
    """
    damage = catalog.search(kind="damage")
    if not len(damage):
        raise UserError(
            "the catalog has no ablation damage: does the study have a section `damage`?"
        )
    table = damage.frame()
    whole = sorted({*ks, k})
    rows: list[dict[str, Any]] = []
    pairs: list[pd.DataFrame] = []
    checkpoints = list(groups(table, "model", "checkpoint"))
    with Progress(len(checkpoints), "correlating", "checkpoint") as progress:
        for model, checkpoint, own in checkpoints:
            measured = catalog.search(model=model, checkpoint=checkpoint)
            found = baselines(measured, list(own["dataset"].unique()), whole, k, variant)
            who = {"model": model, "checkpoint": checkpoint}
            means = mean_damage(own)
            pairs.append(with_baselines(means, found, k, variant).assign(**who))
            rows += [{**who, **row} for row in relate(means, found)]
            progress.advance()
    result = pd.DataFrame(rows)
    result["headline"] = ~(result["predictor"] == "miscoupling") | (
        result["k"].eq(k) & result["variant"].eq(variant)
    )
    by = [*_OF, "outcome", "given"]
    result = over_models(adjust(result, by=by, columns=["p"]), checkpoint_facts(catalog))
    joined = pd.concat(pairs, ignore_index=True)
    joined = joined[[*_OF, *(name for name in joined if name not in _OF)]]
    joined = joined.assign(k=k, variant=variant)
    return write_tables({"damage_statistics": result, "damage_pairs": joined}, out)


def mean_damage(table: pd.DataFrame) -> pd.DataFrame:
    """Average one checkpoint's damage over the texts of each dataset, then over datasets.

    Returns:
        Columns treatment, blocks (`one`, `two`), block, block_other, kl (over prompts),
        loss_change (over held-out passages), reason, interaction (`lab.ablation.interaction`),
        gain (of displacements, kl / step²), and the columns of `lab.ablation.answers` where
        questions were asked.
    """
    each = {
        "kl": table[table["kind"] == PROMPT],
        "loss_change": table[(table["kind"] == HELDOUT) & ~table["treatment"].isin(DISPLACEMENTS)],
    }
    if "step" in table:
        each["gain"] = each["kl"].assign(gain=table["kl"] / table["step"] ** 2)
    if (table["kind"] == ANSWER).any():
        each |= dict.fromkeys(("accuracy", "accuracy_drop", "answer_loss_change"), answers(table))
    means = {}
    for outcome, texts in each.items():
        of_datasets = texts.groupby(["dataset", *KEYS])[outcome].mean()
        means[outcome] = of_datasets.groupby(KEYS).mean()
    result = pd.DataFrame(means)
    result["reason"] = table.groupby(KEYS)["reason"].first()
    result = result.reset_index()
    result.insert(1, "blocks", np.where(result["block"] == result["block_other"], ONE, TWO))
    result["interaction"] = interaction(result)
    return result


def fisher_z(rho: ArrayLike, entries: ArrayLike) -> np.ndarray:
    """Return artanh ρ, finite for ±1 too, which few pairs of blocks reach easily.

    The ends are moved in by half the step to the next value of Spearman's ρ, 12/(n³ − n).

    Args:
        rho: rank correlations.
        entries: number n of pairs of each.
    """
    n = np.maximum(np.asarray(entries, float), 2)
    end = 1 - 6 / (n**3 - n)
    return np.arctanh(np.clip(np.asarray(rho, float), -end, end))


def over_models(table: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Add the mean of ρ over models, with the model as the independent unit.

    A p-value of one checkpoint is about the order of its blocks. Whether a relation holds in models
    is a question about models: the mean of artanh ρ over them, with Student's t, and the sign test.

    Args:
        table: model, checkpoint, rho, entries, and what :func:`relate` yields.
        facts: as `statistics.points.checkpoint_facts` returns them.

    Returns:
        The table with models (number of independent ones with a ρ, of the same training stage:
        final, untrained, or the checkpoint's name), mean_rho, mean_rho_low, mean_rho_high (95 %)
        and mean_rho_p; interval and p from four models on; positive (models with ρ > 0) and sign_p
        (two-sided sign test).
    """
    from scipy import stats

    facts = facts[[*CHECKPOINT, "origin", "final", "untrained"]]
    known = table.merge(facts, on=CHECKPOINT, how="left")
    stage = known["checkpoint"].mask(known["final"].eq(True), "final")
    known["stage"] = stage.mask(known["untrained"].eq(True), "untrained")
    known["z"] = fisher_z(known["rho"], known["entries"])
    names = ["treatment", "blocks", "outcome", "predictor", "k", "variant", "given"]
    groups_of = known.groupby(["stage", *names], dropna=False, sort=False)
    added = pd.DataFrame(index=known.index)
    for _, own in groups_of:
        z = own.groupby("origin")["z"].mean().dropna()
        mean = own.groupby("origin")["rho"].mean()
        positive, signed = int((mean > 0).sum()), int((mean.abs() > 0).sum())
        row = {"models": len(z), "mean_rho": np.tanh(z.mean()), "positive": positive}
        if signed:
            row["sign_p"] = stats.binomtest(positive, signed).pvalue
        if len(z) >= FEWEST and z.nunique() > 1:
            test = stats.ttest_1samp(z, 0)
            low, high = np.tanh(test.confidence_interval())
            row |= {"mean_rho_low": low, "mean_rho_high": high, "mean_rho_p": test.pvalue}
        for name in _OVER_MODELS:
            added.loc[own.index, name] = row.get(name, np.nan)
    return table.join(added.set_axis(table.index))


def relate(means: pd.DataFrame, found: Mapping[Baseline, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Correlate damage with every baseline, by treatment and outcome.

    Args:
        means: as `mean_damage` returns them.
        found: as `baselines` returns them.

    Yields:
        treatment, blocks, outcome, predictor, k, variant, given (names of the covariates),
        rho, p, entries, permutations (number of block orders), spread, chosen_over_random.
    """
    size = len(found[Baseline("distance")])
    for treatment, blocks, own in groups(means, "treatment", "blocks"):
        shaped = {each: _shaped(x, treatment, blocks, size) for each, x in found.items()}
        if blocks == ONE:
            shaped[Baseline("depth")] = np.arange(1.0, size + 1)
            del shaped[Baseline("distance")]
            shaped.pop(Baseline("cosine_distance"), None)
        for outcome in (name for name in OUTCOMES if name in own):
            y = np.full((size, size), np.nan)
            y[own["block"] - 1, own["block_other"] - 1] = own[outcome]
            y = np.diagonal(y) if blocks == ONE else y
            if not np.isfinite(y).any():
                continue
            for given in _GIVEN[blocks]:
                named = [name for name in given if name != POSITION]
                held = [shaped[Baseline(name)] for name in named if Baseline(name) in shaped]
                if len(held) < len(named):
                    continue
                held += _position(size, blocks) if POSITION in given else []
                for each, x in shaped.items():
                    if each.name not in given:
                        related = shift_test(y, x, held)
                        chosen = np.nan
                        if outcome == "kl" and not given:
                            chosen = over_random(y, x, each.name)
                        yield {
                            "treatment": treatment,
                            "blocks": blocks,
                            "outcome": outcome,
                            "predictor": each.name,
                            "k": each.k,
                            "variant": each.variant,
                            "given": ", ".join(given),
                            **related._asdict(),
                            "chosen_over_random": chosen,
                        }


def over_random(y: np.ndarray, x: np.ndarray, predictor: str) -> float:
    """Damage of the changes that a predictor ranks safest, over that of changes at random.

    Args:
        y: damage, (L, L) or (L), above 0.
        x: predictor, of the same shape.
        predictor: its name.

    Returns:
        Geometric mean of y over the safest tenth (at least one change; ties by the order of the
        blocks), divided by the geometric mean of all, which is what choosing at random gives; NaN
        if a damage is not above 0.
    """
    there = np.isfinite(y) & np.isfinite(x) & (~np.eye(len(y), dtype=bool) if y.ndim == 2 else True)
    kl, rank = y[there], x[there] * (-1 if predictor in HIGH_IS_SAFE else 1)
    if not len(kl) or (kl <= 0).any():
        return np.nan
    safest = np.argsort(rank, kind="stable")[: -(-len(kl) // 10)]
    return float(np.exp(np.log(kl[safest]).mean() - np.log(kl).mean()))


def _position(size: int, blocks: str) -> list[np.ndarray]:
    """Depth of the changed blocks, and its square about the middle."""
    place = np.arange(size) - (size - 1) / 2
    middle = place if blocks == ONE else (place[:, None] + place) / 2
    return [middle, middle**2]


def groups(table: pd.DataFrame, one: str, two: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Groups of rows by two columns, in the order of their first rows."""
    for (first, second), own in table.groupby([one, two], sort=False):
        yield str(first), str(second), own


def _shaped(values: np.ndarray, treatment: Any, blocks: Any, size: int) -> np.ndarray:
    if blocks == ONE:
        return of_one(values)
    return at_places(values, TREATMENTS[treatment].changed, size)


def with_baselines(
    means: pd.DataFrame, found: Mapping[Baseline, np.ndarray], k: int, variant: str
) -> pd.DataFrame:
    """The damage of every change with the values of the baselines."""
    parts = []
    size = len(found[Baseline("distance")])
    for treatment, blocks, own in groups(means, "treatment", "blocks"):
        part = own.copy()
        i, j = own["block"].to_numpy() - 1, own["block_other"].to_numpy() - 1
        for each, values in found.items():
            if each.name == "miscoupling" and each.variant != variant:
                continue
            name = each.name
            if name == "miscoupling" and each.k != k:
                name = f"{name}_k{each.k}"
            shaped = _shaped(values, treatment, blocks, size)
            part[name] = shaped[i] if blocks == ONE else shaped[i, j]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
