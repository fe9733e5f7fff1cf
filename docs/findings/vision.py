"""Rows of the page on vision transformers, from vit_predictors.csv and digits_predictors.csv."""

from __future__ import annotations

import pandas as pd
from docs.findings.estimates import Correlation, Estimate
from docs.findings.population import HERE

from blockcoupling.lab.populations.effects import effect

RATE, DECAY, SEED = "factor.stochastic_depth", "factor.weight_decay", "factor.seed"
CASES = {"CIFAR-10": "vit_predictors.csv", "digits": "digits_predictors.csv"}


def _final(file: str) -> pd.DataFrame:
    table = pd.read_csv(HERE / file)
    return table[table["final"]]


def _effect(table: pd.DataFrame, of: str, on: str, *fixed: str) -> Estimate:
    return Estimate(*effect(table, of, on, fixed)[:3])


def rankme_with_loss(file: str) -> Correlation:
    """Correlation of RankMe with the test loss, with Fisher's interval."""
    from scipy import stats

    table = _final(file)
    found = stats.pearsonr(table["rankme"], table["test.loss"])
    return Correlation(float(found.statistic), *map(float, found.confidence_interval()))


def rows() -> list[list[str]]:
    """As `population.rows`."""
    found = []
    for name, file in CASES.items():
        table = _final(file)
        raised = _effect(table, RATE, "coupling", DECAY, SEED)
        straight = _effect(table, RATE, "line_shape_score", DECAY, SEED)
        found.append(
            [
                f"Does stochastic depth raise coupling in vision transformers ({name})?",
                "yes" if raised.excludes_zero and raised.value > 0 else "not shown",
                f"{raised} per unit of the rate; line-shape score {straight}; n = {len(table)}",
                "an interval with 0",
                raised.smallest,
            ]
        )
    vit = _final(CASES["CIFAR-10"])
    at_rate = _effect(vit, "coupling", "test.accuracy", RATE)
    at_decay = _effect(vit, "coupling", "test.accuracy", DECAY)
    at_both = _effect(vit, "coupling", "test.accuracy", RATE, DECAY)
    rank = {name: rankme_with_loss(file) for name, file in CASES.items()}
    found += [
        [
            "At a fixed rate, are better coupled vision transformers more accurate?",
            "yes, as far as weight decay raises both; at a fixed decay less accurate; with both "
            "fixed nothing is shown",
            f"slope {at_rate} at a fixed rate, {at_decay} at a fixed decay, {at_both} with both "
            "fixed; n = 16",
            "intervals with 0",
            f"{at_rate.smallest}; {at_decay.smallest}; {at_both.smallest}",
        ],
        [
            "Does RankMe tell the loss of vision transformers?",
            "on CIFAR-10 yes, but the sign reverses at fixed rate and decay; on digits not shown",
            f"r with the test loss {rank['CIFAR-10']}, {rank['digits']}; slope at fixed rate and "
            f"decay {_effect(vit, 'rankme', 'test.loss', RATE, DECAY)}",
            "one sign throughout",
            f"r = {rank['CIFAR-10'].smallest}; {rank['digits'].smallest}",
        ],
    ]
    return found
