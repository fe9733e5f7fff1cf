"""Rows of the page on ablation, from the committed pairs of blocks of every model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pandas as pd
from docs.findings.estimates import Correlation, mean_of, plain
from docs.findings.population import HERE

from blockcoupling.lab.ablation.interaction import interaction
from blockcoupling.lab.ablation.shifts import ShiftTest, shift_test
from blockcoupling.lab.ablation.statistics import fisher_z, over_random

TREATMENTS = ("skip", "replace", "swap", "merge")
PREDICTORS = {
    "miscoupling": "mis-coupling m",
    "output_overlap": "output overlap",
    "input_overlap": "input overlap",
    "cosine_distance": "cosine distance",
    "block_influence": "block influence",
}
HELD = ("distance", "block_influence", "position")
REAL = "smollm2"
BY_K = {
    1: "miscoupling_k1",
    2: "miscoupling_k2",
    5: "miscoupling_k5",
    10: "miscoupling",
    20: "miscoupling_k20",
}
"""The column of mis-coupling at each K."""


@cache
def pairs(file: str) -> pd.DataFrame:
    """All changes of the models in a table, with interactions."""
    table = pd.read_csv(HERE / file)
    parts = [
        own.assign(interaction=interaction(own))
        for _, own in table.groupby(["model", "checkpoint"])
    ]
    return pd.concat(parts, ignore_index=True)


def matrix(own: pd.DataFrame, column: str, *, both: bool) -> np.ndarray:
    """Values of pairs as a matrix over blocks; in both orders if they do not differ."""
    size = int(own[["block", "block_other"]].to_numpy().max())
    values = np.full((size, size), np.nan)
    i, j = own["block"] - 1, own["block_other"] - 1
    values[i, j] = own[column]
    if both and own["treatment"].iloc[0] not in ("replace", "displace"):
        values[j, i] = own[column]
    return values


@cache
def related(
    file: str,
    model: str,
    checkpoint: str,
    treatment: str,
    outcome: str,
    predictor: str,
    held: Sequence[str] = (),
) -> ShiftTest:
    """Rank correlation of an outcome of pairs with a predictor, tested by shifted block orders."""
    own = of_pairs(file, model, checkpoint, treatment)
    given = [matrix(own, name, both=True) for name in held if name not in ("position", predictor)]
    if "position" in held:
        place = np.arange(len(given[0])) - (len(given[0]) - 1) / 2
        middle = (place[:, None] + place) / 2
        given += [middle, middle**2]
    y = matrix(own, outcome, both=False)
    return shift_test(y, matrix(own, predictor, both=True), given)


def of_pairs(file: str, model: str, checkpoint: str, treatment: str) -> pd.DataFrame:
    """The changes of two blocks of one checkpoint."""
    table = pairs(file)
    chosen = (table["model"] == model) & (table["checkpoint"] == checkpoint)
    return table[chosen & (table["treatment"] == treatment) & (table["blocks"] == "two")]


def real(treatment: str, outcome: str, predictor: str, held: Sequence[str] = ()) -> ShiftTest:
    """`related` for the trained SmolLM2."""
    return related("damage_smollm2.csv", REAL, "main", treatment, outcome, predictor, tuple(held))


def over_models(treatment: str, outcome: str, predictor: str) -> tuple[Correlation, int, int]:
    """Mean ρ over all trained models, the model as the unit; how many are positive, of how many."""
    small = pairs("damage_small.csv")
    last = small.loc[small["checkpoint"] != "step0", ["model", "checkpoint"]].drop_duplicates()
    found = [
        related("damage_small.csv", model, checkpoint, treatment, outcome, predictor)
        for model, checkpoint in last.itertuples(index=False)
    ]
    found.append(real(treatment, outcome, predictor))
    known = [each for each in found if np.isfinite(each.rho)]
    z = fisher_z([each.rho for each in known], [each.entries for each in known])
    return Correlation(*map(float, np.tanh(mean_of(z)))), int((z > 0).sum()), len(z)


def rho_table(outcome: str) -> list[list[str]]:
    """A row for each predictor: ρ of each treatment alone, and controlling for the others."""
    found = []
    for predictor, name in PREDICTORS.items():
        cells = [name]
        for treatment in TREATMENTS:
            alone = real(treatment, outcome, predictor)
            cells.append(f"{_rho(alone)}")
        for treatment in TREATMENTS:
            cells.append(_rho(real(treatment, outcome, predictor, HELD)))
        found.append(cells)
    return found


def _rho(test: ShiftTest) -> str:
    return f"**{plain(test.rho)}**" if test.p <= 0.05 else plain(test.rho)


def _range(tests: Sequence[ShiftTest]) -> str:
    rho = [test.rho for test in tests]
    p = [test.p for test in tests]
    span = f"{min(p):.2g}" if max(p) - min(p) < 1e-3 else f"{min(p):.2g} to {max(p):.2g}"
    return f"ρ {plain(min(rho))} to {plain(max(rho))} (p {span})"


def _smallest(tests: Sequence[ShiftTest]) -> str:
    return f"ρ = {2.8 * max(test.spread for test in tests):.2f}"


def each(outcome: str, predictor: str, held: Sequence[str] = ()) -> list[ShiftTest]:
    """The tests of all treatments."""
    return [real(treatment, outcome, predictor, held) for treatment in TREATMENTS]


def held_at_any_k() -> list[ShiftTest]:
    """Tests of m with KL, controlling for the others, for every treatment and K."""
    return [test for m in BY_K.values() for test in each("kl", m, HELD)]


def chosen_over_random(treatment: str, predictor: str) -> float:
    """Damage of the safest tenth of pairs by a predictor, over that of random pairs."""
    own = of_pairs("damage_smollm2.csv", REAL, "main", treatment)
    y, x = (matrix(own, name, both=False) for name in ("kl", predictor))
    return over_random(y, x, predictor)


def rows() -> list[list[str]]:
    """As `population.rows`."""
    alone, held = each("kl", "miscoupling"), each("kl", "miscoupling", HELD)
    influence = each("kl", "block_influence")
    own, own_held = each("interaction", "miscoupling"), each("interaction", "miscoupling", HELD)
    untrained = [
        related("damage_smollm2.csv", REAL, "init", treatment, "kl", "miscoupling")
        for treatment in TREATMENTS
    ]
    chosen = {
        name: [chosen_over_random(treatment, name) for treatment in TREATMENTS]
        for name in ("miscoupling", "block_influence", "input_overlap")
    }
    skip, skip_up, count = over_models("skip", "interaction", "miscoupling")
    replaced, replaced_up, _ = over_models("replace", "interaction", "miscoupling")
    swapped, swapped_up, _ = over_models("swap", "kl", "miscoupling")
    replacing = float(
        np.exp(of_pairs("damage_smollm2.csv", REAL, "main", "replace")["interaction"].median())
    )
    return [
        [
            "Which pairs of blocks can be ablated, replaced, swapped or merged with little damage?",
            "those that change the state little; those that are coupled, too, but less clearly",
            f"m: {_range(alone)}; block influence: {_range(influence)}",
            "ρ near 0, or larger for m than for block influence",
            _smallest(alone),
        ],
        [
            "… controlling for distance, block influence and position?",
            "nothing is shown for coupling",
            f"m: {_range(held)}",
            "p ≤ 0.05",
            _smallest(held),
        ],
        [
            "Does it depend on K?",
            "not on K up to 10; at K = 20 the relation of coupling with damage is weaker",
            "m with KL: "
            + ", ".join(f"{_range(each('kl', m))} at K = {k}" for k, m in BY_K.items())
            + f"; controlling for the others, at any K: {_range(held_at_any_k())}",
            "another sign at some K, or p ≤ 0.05 controlling for the others",
            _smallest(held_at_any_k()),
        ],
        [
            "… in an untrained model?",
            "coupling has no relation with damage",
            f"m: {_range(untrained)}",
            "p ≤ 0.05",
            _smallest(untrained),
        ],
        [
            "How much better than removing pairs at random?",
            "the best coupled tenth of pairs costs a fifth to two fifths of random pairs; block "
            "influence chooses about as well",
            "; ".join(
                f"{PREDICTORS[name]}: × {min(v):.2f} to × {max(v):.2f}"
                for name, v in chosen.items()
            ),
            "× 1",
            "—",
        ],
        [
            "Does coupling tell what belongs to the pair, the damage beyond that of its parts?",
            "not shown in SmolLM2-135M",
            f"m with the interaction: {_range(own)}; controlling for distance, influence and "
            f"position {_range(own_held)}; replacing costs × {replacing:.1f} of ablating (median)",
            "p ≤ 0.05 controlling for the others",
            _smallest(own_held),
        ],
        [
            f"… over {count} trained models, the model as the unit?",
            "in the small ones yes, as distance does: ablating two coupled blocks costs more than "
            "its parts, replacing one by the other less",
            f"mean ρ of m with the interaction: skip {skip}, {count - skip_up} of {count} "
            f"negative; replace {replaced}, {replaced_up} of {count} positive; with the KL of "
            f"swapping {swapped}, {swapped_up} of {count} positive",
            "intervals with 0",
            f"{skip.smallest}; {replaced.smallest}; {swapped.smallest}",
        ],
    ]


def statistics() -> Iterator[dict[str, object]]:
    """Every correlation of the page, and those of each small model, as rows of a table."""
    files = ("damage_smollm2.csv", "damage_small.csv", "displacement_pairs.csv")
    for file in files:
        table = pairs(file)
        two = table[table["blocks"] == "two"]
        own = ["model", "checkpoint", "treatment"]
        for model, checkpoint, treatment in two[own].drop_duplicates().itertuples(index=False):
            for outcome in ("kl", "interaction"):
                for predictor in PREDICTORS:
                    for held in ((), HELD):
                        found = related(
                            file, model, checkpoint, treatment, outcome, predictor, held
                        )
                        names = {"outcome": outcome, "predictor": predictor}
                        where = {"model": model, "checkpoint": checkpoint, "treatment": treatment}
                        given = {"given": ", ".join(name for name in held if name != predictor)}
                        yield {**where, **names, **given, **found._asdict()}
