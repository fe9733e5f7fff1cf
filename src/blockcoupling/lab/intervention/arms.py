"""The arms of an experiment: their members, the pairs of members, and their outcomes.

Outcomes are compared where two members have seen the same number of tokens, and where they have the
same training loss: setting coupling slows training, and a model that is behind is not worse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from blockcoupling.config.populations import FACTORS, POPULATION, SCHEDULE
from blockcoupling.errors import UserError
from blockcoupling.lab.ablation.statistics import groups, mean_damage
from blockcoupling.statistics.points import (
    CHECKPOINT,
    checkpoint_facts,
    given_facts,
    points,
    prompt_values,
)
from blockcoupling.statistics.scores import one_column_each, read_scores
from blockcoupling.wording import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blockcoupling.catalog import Catalog

TOKENS, LOSS = "equal tokens", "equal training loss"
COUPLING = "coupling"
DAMAGE, TRAINING = "damage.", "training."


def members(catalog: Catalog, populations: Sequence[str], *, k: int, variant: str) -> pd.DataFrame:
    """Return every checkpoint of the members of some populations, with its outcomes.

    Args:
        catalog: entries of the kinds model, coupling, trajectory, spectra, score; damage where
            blocks were ablated.
        populations: the control first.
        k: of the coupling.
        variant: of the coupling.

    Returns:
        Columns model, checkpoint, step, final, population, arm (the population, and its factors
        that the control lacks), pair (values of the control's factors), stratum (these without the
        seed), weight (of the penalty), schedule (of the learning rate), coupling, one
        `SCORE.METRIC` a score, and `damage.TREATMENT`, log₁₀ of the mean KL of changing one block
        (`skip`, `exit`) or two (`skip_two`, `replace`, `swap`, `merge`).

    Raises:
        UserError: a population has no members in the catalog, or members of an arm have a pair
            twice.
    """
    facts = checkpoint_facts(catalog)
    given = _facts(catalog)
    facts["population"] = [given[key].get(POPULATION) for key in _keys(facts)]
    values = prompt_values(catalog, k=k, variant=variant)
    values = values[values["model"].isin(facts.loc[facts["population"].isin(populations), "model"])]
    for name in populations:
        if name not in set(facts.loc[facts["model"].isin(values["model"]), "population"]):
            raise UserError(f"the catalog has no measured member of the population {name!r}")
    table = points(values, facts, measures=[COUPLING])
    values_of = [given[key].get(FACTORS) or {} for key in _keys(table)]
    shared = _factors_of(values_of, table["population"].eq(populations[0]))
    own = [{f: v for f, v in each.items() if f not in shared} for each in values_of]
    common = [{f: each.get(f) for f in shared} for each in values_of]
    table["arm"] = [_named(n, each) for n, each in zip(table["population"], own, strict=True)]
    table["pair"] = [_listed(each) for each in common]
    table["stratum"] = [_listed({f: v for f, v in e.items() if f != "seed"}) for e in common]
    table["weight"] = [each.get("penalty.weight", np.nan) for each in values_of]
    table["schedule"] = [given[key].get(SCHEDULE) for key in _keys(table)]
    kept = [*CHECKPOINT, "step", "final", "population", "arm", "pair", "stratum", "weight"]
    table = table[[*kept, "schedule", COUPLING]]
    twice = table[table.duplicated(["arm", "pair", "step"])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"{row['arm']} has two members with {row['pair'] or 'no values'} at step "
            f"{row['step']:g}, and one of {populations[0]} to be paired with: give the control's "
            "population the same factors"
        )
    scores = one_column_each(read_scores(catalog))
    table = table.merge(scores, left_on=CHECKPOINT, right_index=True, how="left")
    wide = _damage(catalog)
    if len(wide):
        table = table.merge(wide, left_on=CHECKPOINT, right_index=True, how="left")
    order = {name: place for place, name in enumerate(populations)}
    table["_order"] = table["population"].map(order)
    table = table.sort_values(["_order", "weight", "arm", "pair", "step"], ignore_index=True)
    return table.drop(columns="_order")


def _facts(catalog: Catalog) -> dict[tuple[str, str], dict[str, Any]]:
    """Facts that sections of models add to their records, by (model, checkpoint)."""
    records = catalog.search(kind="model").frame().rename(columns={"name": "model"})
    return dict(zip(_keys(records), given_facts(records), strict=True))


def populations(catalog: Catalog) -> list[str]:
    """Return the names of the populations of a catalog's models, each once."""
    named = (facts.get(POPULATION) for facts in _facts(catalog).values())
    return list(dict.fromkeys(str(name) for name in named if name))


def _keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["model"], table["checkpoint"], strict=True))


def _factors_of(given: list[dict[str, Any]], chosen: pd.Series) -> list[str]:
    """Names of the factors of the chosen members, in their order."""
    every = (name for each, yes in zip(given, chosen, strict=True) if yes for name in each)
    return list(dict.fromkeys(every))


def _named(population: str, values: dict[str, Any]) -> str:
    """Name of an arm: its population, and the values that distinguish it from other arms."""
    return " ".join([population, *(str(value) for value in values.values())])


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _damage(catalog: Catalog) -> pd.DataFrame:
    """log₁₀ of the mean KL of every treatment, a column each, by (model, checkpoint)."""
    found = catalog.search(kind="damage")
    if not len(found):
        return pd.DataFrame()
    rows: dict[Any, dict[str, float]] = {}
    for key, own in found.frame().groupby(CHECKPOINT):
        means = mean_damage(own)
        rows[key] = {}
        for treatment, blocks, part in groups(means, "treatment", "blocks"):
            two = (treatment, blocks) == ("skip", "two")
            rows[key][f"{DAMAGE}{treatment}{'_two' if two else ''}"] = float(part["kl"].mean())
    wide = pd.DataFrame.from_dict(rows, orient="index")
    wide.index = pd.MultiIndex.from_tuples(wide.index, names=CHECKPOINT)
    # No logarithm where a treatment changes nothing, or cannot be applied.
    return wide.where(wide > 0).map(np.log10)


def outcomes(table: pd.DataFrame) -> list[str]:
    """Names of the columns of `members` that are outcomes: coupling first, scores, damage."""
    names = [str(name) for name in table if "." in str(name)]
    damage = [name for name in names if name.startswith(DAMAGE)]
    return [COUPLING, *sorted(set(names) - set(damage)), *damage]


def headline(catalog: Catalog, names: Iterable[str]) -> list[str]:
    """Return the outcomes that a study is about: those of its headline metric, and damage."""
    table = catalog.one(kind="correlation").read(columns=["metric", "headline"])
    metrics = set(table.loc[table["headline"], "metric"])
    return [n for n in names if n.startswith(DAMAGE) or n.rsplit(".", maxsplit=1)[-1] in metrics]


def label(outcome: str) -> str:
    """Return the words for an outcome; damage with its transformation."""
    if outcome.startswith(DAMAGE):
        return f"log₁₀ KL of {words(outcome.removeprefix(DAMAGE))}"
    return words(outcome.replace(".", ", "))


def incomparable(arms: Sequence[pd.DataFrame], loss: str, target: float) -> str:
    """Return why the members of a pair cannot be compared at equal training loss; "" if they can.

    A model at the end of a falling learning rate has a lower loss than one that passes the same
    step at a high one: only at a constant rate do the same losses mean the same.

    Args:
        arms: the checkpoints of each member.
        loss: column of the training loss.
        target: value of that loss.
    """
    if any(own["schedule"].ne("constant").any() for own in arms):
        return "the learning rate is not constant"
    for own in arms:
        if not own[loss].min() <= target:
            return f"{own['arm'].iloc[0]} does not reach that training loss"
        if not own[loss].max() >= target:
            return f"{own['arm'].iloc[0]} is below that training loss at its first checkpoint"
    return ""


def at_loss(own: pd.DataFrame, loss: str, target: float, wanted: Sequence[str]) -> dict[str, float]:
    """Interpolate outcomes of one member to the checkpoint where its training loss is `target`.

    Args:
        own: the checkpoints of one member.
        loss: column of the training loss.
        target: value of that loss.
        wanted: columns; linear in the loss between neighbouring checkpoints, NaN outside of them.
    """
    known = own[np.isfinite(own[loss])].sort_values(loss)
    if known.empty:
        return dict.fromkeys(wanted, np.nan)
    return {
        name: float(np.interp(target, known[loss], known[name], left=np.nan, right=np.nan))
        for name in wanted
    }
