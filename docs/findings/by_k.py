"""Rows of the page on chance, distance and K in the population: sweep_coupling, sweep_locality."""

from __future__ import annotations

from functools import cache
from typing import Any

import pandas as pd
from docs.findings.estimates import Correlation, Estimate, mean_of, plain
from docs.findings.population import HERE, SCORES, deep, points

from blockcoupling.statistics.factors import covariates
from blockcoupling.statistics.regression import relate

MAIN = 10
DEEP = 6
WIDE = 128


@cache
def coupling() -> pd.DataFrame:
    """Coupling, chance and excess of every checkpoint and K, with what else is known of it."""
    facts = points().drop(columns=["coupling", "coupling_se", "k"])
    return pd.read_csv(HERE / "sweep_coupling.csv").merge(facts, on=["model", "checkpoint"])


def every_k() -> list[int]:
    """The K of the study."""
    return sorted(coupling()["k"].unique())


def excess_gained(k: int, width: int | None = None) -> Estimate:
    """Excess coupling, trained minus untrained; of all models, or those of a width."""
    own = coupling().query("k == @k").set_index("model")
    own = own if width is None else own[own["dimension"] == width]
    return mean_of(own.loc[own["final"], "excess"] - own.loc[own["untrained"], "excess"])


def with_loss(column: str, k: int, score: str = "heldout") -> tuple[Correlation, Correlation]:
    """Return r with a score over trained models, and controlling for size and hyperparameters."""
    final = coupling().query("k == @k and final").reset_index(drop=True)
    held = covariates(final, "coupling", {})
    found = relate(final[column], final[SCORES[score]], covariates=held)
    return tuple(  # type: ignore[return-value]
        Correlation(*(found[f"{name}{end}"] for end in ("", "_low", "_high")))
        for name in ("pearson", "partial")
    )


def by_distance(k: int, stage: str) -> tuple[Estimate, Estimate]:
    """Return m of neighbours, and of blocks at least four apart, minus the mean over distances.

    Models of at least `DEEP` blocks; every distance of a model has the same weight.
    """
    table = pd.read_csv(HERE / "sweep_locality.csv").query("k == @k")
    own = table.merge(points().loc[deep(stage, DEEP), ["model", "checkpoint"]])
    m = own.pivot_table("miscoupling", "model", "distance")
    over_all = m.mean(axis=1)
    far = m.loc[:, [distance for distance in m if distance >= 4]].mean(axis=1)
    return mean_of(m[1] - over_all), mean_of(far - over_all)


def rows() -> list[list[str]]:
    """As `population.rows`."""
    ks = every_k()
    gains = {k: excess_gained(k) for k in ks}
    found = {column: [with_loss(column, k) for k in ks] for column in ("coupling", "excess")}
    near, far = by_distance(MAIN, "final")
    before, _ = by_distance(MAIN, "untrained")
    others = [by_distance(k, "final")[0].value for k in ks]
    return [
        [
            "Is it more coupling than chance gives at that width and K?",
            "yes on average, at every K; in wide models at small K only",
            "excess, trained minus untrained: "
            + ", ".join(f"{each} (K = {k})" for k, each in gains.items())
            + f"; width {WIDE}: "
            + ", ".join(f"{excess_gained(k, WIDE)} (K = {k})" for k in ks),
            "a mean of 0 at some K",
            max(each.smallest for each in gains.values()),
        ],
        [
            "Do the answers on the loss depend on K, or on what chance gives?",
            "no",
            "; ".join(
                f"{column}: r {_span([r for r, _ in both])}, partial r "
                f"{_span([r for _, r in both])} over K = {ks[0]} to {ks[-1]}"
                for column, both in found.items()
            )
            + "; all intervals of r exclude 0, all of partial r have it",
            "another sign, or a partial interval without 0, at some K",
            f"r = {max(r.smallest for both in found.values() for _, r in both)}",
        ],
        [
            "Does coupling fall with the distance between blocks?",
            "yes, after training",
            f"m of neighbours minus the mean over distances {near}, of blocks four or more apart "
            f"{far}; untrained neighbours {before}; n = {deep('final', DEEP).sum()}; neighbours at "
            f"other K {_span(others)}",
            "a difference of 0",
            near.smallest,
        ],
    ]


def _span(values: list[Any]) -> str:
    numbers = [float(getattr(value, "value", value)) for value in values]
    return f"{plain(min(numbers))} to {plain(max(numbers))}"
