"""Row of the page on the course of coupling in training: the ladder, and the controls of arms."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from docs.findings import population, setting
from docs.findings.estimates import Estimate, mean_of, plain
from docs.findings.population import HERE, TRAINING

STEPS = (0, 64, 512)


def ladder() -> pd.DataFrame:
    """Coupling by model (rows, by width) and step."""
    table = pd.read_csv(HERE / "ladder_predictors.csv")
    return table.pivot_table(index="dimension", columns="step", values="coupling")


def late_change() -> Estimate:
    """Coupling of the controls at update 512 minus that at 256, in pairs of one seed."""
    table = setting.members()
    own = table[table["arm"] == "plain"].pivot_table(
        index="pair", columns="step", values="coupling"
    )
    return mean_of(own[512] - own[256])


def within_widths() -> Mapping[str, list[float]]:
    """Spearman's ρ of the gain with learning rate and training loss, among models of each width."""
    final = population.points()[population.points()["final"]].set_index("model")
    gain = population.gain("coupling")
    return {
        name: [
            float(own[name].corr(gain[own.index], method="spearman"))
            for _, own in final.groupby("dimension")
        ]
        for name in ("factor.learning_rate", TRAINING)
    }


def rows() -> list[list[str]]:
    """As `population.rows`."""
    late, within = late_change(), within_widths()
    course = "; ".join(
        f"width {width}: {' → '.join(plain(own[step]) for step in STEPS)}"
        for width, own in ladder().iterrows()
    )
    spans = {name: f"{plain(min(rho))} to {plain(max(rho))}" for name, rho in within.items()}
    return [
        [
            "Are 500 updates too few for coupling to emerge in wide models?",
            "**no: it rises within a hundred updates and falls again, further in wide models**",
            f"coupling after {', '.join(map(str, STEPS))} updates: {course}; six seeds at width "
            f"80, 512 minus 256 updates {late}; among models of one width, ρ of the gain with the "
            f"learning rate {spans['factor.learning_rate']}, with the training loss "
            f"{spans[TRAINING]}",
            "coupling that still rises at the end",
            late.smallest,
        ]
    ]
