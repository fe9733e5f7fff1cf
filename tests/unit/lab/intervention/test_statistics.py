"""Experiments whose truth is known: what was planted is found, and nothing else."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from blockcoupling.config.intervention import Intervention
from blockcoupling.lab.intervention.arms import LOSS, TOKENS, at_loss, outcomes
from blockcoupling.lab.intervention.statistics import (
    ALL,
    adjust_prespecified,
    compare,
    equal_outcomes,
    judge,
)

SECTION = Intervention(
    control="plain", doses=["couple"], shams=["sham"], smallest_effect={"heldout.loss": 0.05}
)
ARMS = {"plain": (0.0, -0.9), "couple 0.1": (0.1, -0.5), "couple 1": (1, -0.2)}
ARMS |= {"couple -0.1": (-0.1, -1.4), "sham 0.1": (0.1, -0.9), "tied": (0, -0.1)}


def experiment(
    effect: float = 0.0, cost: float = 0.0, behind: float = 0.0, seeds: int = 8
) -> pd.DataFrame:
    """Arms × seeds × checkpoints.

    Args:
        effect: of coupling on the held-out loss.
        cost: of any penalty, real or sham, on the held-out loss alone.
        behind: how much later in training each dose is, which is all that it does.

    """
    random = np.random.default_rng(3)
    quality = random.normal(0, 0.3, seeds)
    rows = []
    for arm, (weight, coupling) in ARMS.items():
        for seed in range(seeds):
            for step in (100, 200, 400):
                time = step / (1 + behind * (weight != 0 and "couple" in arm))
                training = 5 / np.log(time) + quality[seed]
                mine = coupling + 0.1 * quality[seed] + random.normal(0, 0.02)
                noise = random.normal(0, 0.005)
                rows.append(
                    {
                        **{"model": f"{arm}-{seed}", "checkpoint": f"step{step}", "step": step},
                        **{"final": step == 400, "population": arm.split()[0], "arm": arm},
                        **{"pair": f"seed {seed}", "stratum": "", "weight": weight},
                        "schedule": "constant",
                        "coupling": mine,
                        "training.loss": training,
                        "heldout.loss": 1.1 * training
                        + effect * (mine + 0.9)
                        + cost * (weight != 0)
                        + noise,
                        "damage.skip": random.normal(),
                    }
                )
    return pd.DataFrame(rows)


def found(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(compare(table, SECTION, "training.loss"))


def of(rows: pd.DataFrame, **which: object) -> pd.Series:
    which = {"outcome": "heldout.loss", "at": TOKENS, "against": "plain", **which}
    for column, value in which.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_planted_effect_of_coupling_is_found() -> None:
    rows = found(experiment(effect=-0.2))
    slope = of(rows, analysis="slope", arm="all doses")
    assert slope["low"] < -0.2 < slope["high"] < 0
    assert (slope["pairs"], slope["points"]) == (8, 32)
    dose = of(rows, arm="couple 1")
    assert dose["estimate"] == pytest.approx(-0.2 * 0.7, abs=0.02)
    assert dose["coupling"] - dose["coupling_against"] == pytest.approx(0.7, abs=0.03)
    assert dose["p_equivalent"] > 0.05
    assert of(rows, arm="sham 0.1")["p_equivalent"] < 0.001


def test_what_a_penalty_costs_by_itself_is_not_taken_for_coupling() -> None:
    rows = found(experiment(cost=0.1))
    assert of(rows, arm="couple 1")["low"] > 0.08  # dearer than the control
    beside = of(rows, arm="couple 1", against="sham 0.1")
    assert abs(beside["estimate"]) < 0.01  # but not than the sham
    assert beside["p_equivalent"] < 0.001


def test_a_model_that_is_merely_behind_is_not_worse_at_equal_training_loss() -> None:
    rows = found(experiment(behind=0.5))
    assert of(rows, arm="couple 1")["low"] > 0.05
    equal = of(rows, arm="couple 1", at=LOSS)
    assert equal["pairs"] == 8
    assert abs(equal["estimate"]) < 0.02


def test_a_falling_learning_rate_forbids_comparing_at_equal_training_loss() -> None:
    """The arm is at the end of its schedule, the control in the middle of the same one."""
    rows = found(experiment(behind=0.5).assign(schedule="cosine"))
    equal = of(rows, arm="couple 1", at=LOSS)
    assert equal["pairs"] == 0
    assert equal["note"].startswith("8 of 8 pairs lost: the learning rate is not constant (8)")
    assert of(rows, analysis="slope", arm="all doses", at=LOSS)["pairs"] == 0
    assert of(rows, arm="couple 1")["pairs"] == 8  # at equal tokens as ever


def test_all_members_are_compared_at_the_training_loss_that_was_fixed_beforehand() -> None:
    table = experiment()
    number = table["pair"].str.removeprefix("seed ").astype(int)
    behind = 10 * number * table["arm"].eq("couple 1")
    table["training.loss"] = 3 - (table["step"] - behind) / 200  # ends at 1; doses at 1 … 1.35
    table["heldout.loss"] = 1.1 * table["training.loss"] + 0.2 * table["arm"].eq("couple 1")

    def at(target: float) -> pd.Series:
        section = SECTION.model_copy(update={"training_loss": target})
        return of(pd.DataFrame(compare(table, section, "training.loss")), arm="couple 1", at=LOSS)

    row = at(1.22)
    assert row["pairs"] == 5
    assert row["note"].startswith(
        "3 of 8 pairs lost: couple 1 does not reach that training loss (3)"
    )
    # Linear in the loss, as between checkpoints; the dose does not differ but by what was planted.
    assert (row["mean"], row["mean_against"]) == pytest.approx((1.1 * 1.22 + 0.2, 1.1 * 1.22))
    assert row["estimate"] == pytest.approx(0.2)
    row = at(2.6)
    assert "is below that training loss at its first checkpoint" in row["note"]


@pytest.mark.parametrize(
    ("moved", "verdict"),
    [(0.2, "equivalent"), (0.0, "equivalent, but so are the positive controls")],
)
def test_equivalence_counts_only_where_a_positive_control_fails_it(
    moved: float, verdict: str
) -> None:
    table = experiment()
    table.loc[table["population"] == "tied", "heldout.loss"] += moved
    section = SECTION.model_copy(update={"positive_controls": ["tied"]})
    rows = pd.DataFrame(compare(table, section, "training.loss"))
    judged = judge(adjust_prespecified(rows, section, {}), section)
    assert of(judged, arm="couple 1")["verdict"] == verdict
    assert of(judged, arm="tied")["verdict"] == ("different" if moved else verdict)
    assert of(judged, arm="couple 1", against="sham 0.1")["verdict"] == verdict
    unnamed = judge(adjust_prespecified(rows, SECTION, {}), SECTION)
    assert of(unnamed, arm="couple 1")["verdict"] == "equivalent"
    assert (judged.loc[judged["outcome"] == "damage.skip", "verdict"] == "").all()


def test_what_scatters_too_much_is_neither_shown_nor_excluded() -> None:
    table = experiment()
    table["heldout.loss"] += np.random.default_rng(2).normal(0, 0.2, len(table))
    rows = pd.DataFrame(compare(table, SECTION, "training.loss"))
    row = of(judge(adjust_prespecified(rows, SECTION, {}), SECTION), arm="couple 1")
    assert row["verdict"] == "neither shown nor excluded"
    assert row["detectable"] > SECTION.smallest_effect["heldout.loss"]


def test_slopes_of_each_side_have_the_control_and_the_doses_of_that_side() -> None:
    rows = found(experiment(effect=0.3))
    more = of(rows, analysis="slope", arm="coupled more")
    less = of(rows, analysis="slope", arm="coupled less")
    assert (more["points"], less["points"]) == (24, 16)
    assert more["coupling_against"] == pytest.approx(-0.9, abs=0.15)
    assert less["coupling"] == pytest.approx(-0.9, abs=0.15)


def test_damage_and_the_loss_held_equal_are_not_compared_at_equal_loss() -> None:
    rows = found(experiment())
    assert set(rows.loc[rows["at"] == LOSS, "outcome"]) == {"coupling", "heldout.loss"}
    assert "damage.skip" in set(rows.loc[rows["at"] == TOKENS, "outcome"])


def test_shams_are_held_against_doses_and_nothing_else() -> None:
    rows = found(experiment())
    against = rows[rows["against"] == "sham 0.1"]
    assert set(against["population"]) == {"couple"}


def test_strata_are_told_one_by_one_and_together() -> None:
    table = pd.concat(
        [
            experiment(effect=effect).assign(
                stratum=f"blocks {blocks}", pair=lambda t, b=blocks: t["pair"] + f", blocks {b}"
            )
            for blocks, effect in ((3, 0.2), (8, -0.2))
        ]
    )
    rows = found(table)
    assert set(rows["stratum"]) == {ALL, "blocks 3", "blocks 8"}
    slopes = [
        of(rows, analysis="slope", arm="all doses", stratum=name)["estimate"]
        for name in ("blocks 3", "blocks 8")
    ]
    assert slopes == pytest.approx([0.2, -0.2], abs=0.02)


def test_outcomes_lie_between_checkpoints_on_a_line_and_nowhere_else() -> None:
    own = pd.DataFrame({"training.loss": [3.0, 2.0, 1.5], "heldout.loss": [4.0, 3.0, 2.9]})
    value = {at: at_loss(own, "training.loss", at, ["heldout.loss"]) for at in (2.5, 1.6, 1.4, 3.1)}
    assert value[2.5]["heldout.loss"] == pytest.approx(3.5)
    assert value[1.6]["heldout.loss"] == pytest.approx(2.92)
    assert np.isnan(value[1.4]["heldout.loss"])
    assert np.isnan(value[3.1]["heldout.loss"])
    assert outcomes(experiment()) == ["coupling", "heldout.loss", "training.loss", "damage.skip"]


def test_p_values_are_adjusted_over_prespecified_outcomes_each_once() -> None:
    table = experiment(effect=-0.2)
    table["heldout.nats"] = table["heldout.loss"] * (1 + 1e-12)  # the same score by another name
    table["probe.accuracy"] = np.random.default_rng(1).normal(size=len(table))
    equal = equal_outcomes(table)
    assert equal == {"heldout.nats": "heldout.loss"}
    rows = pd.DataFrame(compare(table, SECTION, "training.loss"))
    by_effect = adjust_prespecified(rows, SECTION, equal)
    assert set(by_effect.loc[by_effect["prespecified"], "outcome"]) == {"heldout.loss"}
    own = by_effect.query("analysis == 'difference' and at == @TOKENS and against == 'plain'")
    assert set(own["comparisons"]) == {len(ARMS) - 1}  # one loss, an arm each
    loss = own[own["outcome"] == "heldout.loss"]
    expected = multipletests(loss["p"], method="holm")[1]
    np.testing.assert_allclose(loss["p_adjusted"], expected)
    others = own[own["outcome"] != "heldout.loss"]
    assert others["p_adjusted"].isna().all()
    assert others["p"].notna().any()
    assert (
        own.loc[own["outcome"] == "heldout.nats", "note"] == "same values as heldout.loss"
    ).all()
    named = SECTION.model_copy(update={"outcomes": ["probe.accuracy"]})
    found = adjust_prespecified(rows, named, equal)
    assert set(found.loc[found["prespecified"], "outcome"]) == {"probe.accuracy"}
    free = SECTION.model_copy(update={"smallest_effect": {}})
    found = adjust_prespecified(rows, free, equal)
    chosen = set(found.loc[found["prespecified"], "outcome"])
    assert chosen == {"heldout.loss", "training.loss", "probe.accuracy", "damage.skip"}
