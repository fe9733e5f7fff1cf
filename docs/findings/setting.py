"""Rows of the page on setting coupling in training, from intervention_arms.csv."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from docs.findings.estimates import Estimate, mean_of, p_text
from docs.findings.population import HERE

from blockcoupling.lab.intervention.paired import paired_difference

LOSS, GAP, TRAINING = (f"{name}.nats_per_byte" for name in ("heldout", "gap", "training"))


def members() -> pd.DataFrame:
    """All kept checkpoints of all arms."""
    return pd.read_csv(HERE / "intervention_arms.csv")


def compared(outcome: str, arm: str, against: str = "plain") -> dict[str, Any]:
    """The last checkpoints of two arms, in pairs of one seed."""
    last = members()[members()["final"]].pivot_table(index="pair", columns="arm", values=outcome)
    return paired_difference(last[arm], last[against])


def difference(outcome: str, arm: str, against: str = "plain") -> Estimate:
    """Their mean difference."""
    found = compared(outcome, arm, against)
    return Estimate(found["estimate"], found["low"], found["high"])


def factor(arm: str, treatment: str, against: str) -> str:
    """How many times the damage of `against` an arm has."""
    powers = difference(f"damage.{treatment}", arm, against)
    return str(Estimate(*(float(10**each) for each in powers)))


def rows() -> list[list[str]]:
    """As `population.rows`."""
    more, less, sham = (difference(LOSS, arm) for arm in ("couple 0.1", "couple -0.03", "sham"))
    table = members()
    slope, constant = np.polyfit(table[TRAINING], table[LOSS], 1)
    rest = table[LOSS] - slope * table[TRAINING] - constant
    gap = mean_of(table.loc[table["final"], GAP])
    return [
        [
            "Does setting coupling lower the held-out loss?",
            "**no: raised or lowered, the loss rises, because training slows down**",
            f"coupling {difference('coupling', 'couple 0.1')}: loss {more}; coupling "
            f"{difference('coupling', 'couple -0.03')}: loss {less}",
            "a difference below 0",
            f"{more.smallest}; {less.smallest}",
        ],
        [
            "… is that the price of coupling, or of any penalty?",
            "partly of any penalty; but the sham changes coupling, too, so that the two are not "
            "separated",
            f"sham of the same weight, 0.1: loss {sham}, "
            f"{100 * sham.value / more.value:.0f} % of the dose's; "
            f"coupling {difference('coupling', 'sham')} "
            f"({p_text(compared('coupling', 'sham')['p'])}); "
            f"coupled minus sham {difference(LOSS, 'couple 0.1', 'sham')}",
            "a sham without effect",
            sham.smallest,
        ],
        [
            "Does setting it change the generalization gap?",
            "**not answered by this study**: nothing in it could have moved the gap",
            f"gap of all arms {gap.value:.3f}; held-out loss = {constant:.2f} + {slope:.2f} × "
            f"training loss over all {len(table)} checkpoints, with a standard deviation of "
            f"{rest.std():.3f}",
            "an arm with another gap",
            "see below",
        ],
        [
            "Are blocks of coupled models easier to ablate or replace?",
            "yes; to exit early no",
            "damage over the sham's: "
            + ", ".join(
                f"{name} × {factor('couple 0.1', name, 'sham')}"
                for name in ("skip", "replace", "exit")
            ),
            "an interval with 1",
            "—",
        ],
        [
            "Is coupling needed for that?",
            "**no: stochastic depth does more, with a fifth of the change of coupling**",
            "damage over the control's: "
            + ", ".join(
                f"{name} × {factor('stochastic-depth', name, 'plain')}"
                for name in ("skip", "replace", "exit")
            )
            + f"; coupling {difference('coupling', 'stochastic-depth')}, loss "
            f"{difference(LOSS, 'stochastic-depth')}",
            "an interval with 1",
            "—",
        ],
    ]
