"""Effects with others held fixed: statsmodels' slopes and intervals, and known truth."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from blockcoupling.lab.populations.effects import effect


def members(noise: float, seed: int = 0) -> pd.DataFrame:
    """Coupling rises by 0.5 with the rate, and more than that with the seed and the decay."""
    random = np.random.default_rng(seed)
    rows = [
        {"rate": r, "decay": w, "seed": s, "coupling": 0.5 * r + 3 * w + 2 * s}
        for r in (0, 0.1, 0.2, 0.3)
        for w in (0.05, 0.1)
        for s in range(3)
    ]
    table = pd.DataFrame(rows)
    return table.assign(coupling=table["coupling"] + random.normal(0, noise, len(table)))


def test_without_noise_it_is_the_truth() -> None:
    found = effect(members(0), "rate", "coupling", ["decay", "seed"])
    assert found.slope == pytest.approx(0.5, abs=1e-12)
    assert found.n == 24


@pytest.mark.parametrize("fixed", [[], ["seed"], ["decay", "seed"]])
def test_slope_and_interval_are_those_of_statsmodels(fixed: list[str]) -> None:
    table = members(0.1)
    theirs = smf.ols(" + ".join(["coupling ~ rate", *(f"C({c})" for c in fixed)]), table).fit()
    found = effect(table, "rate", "coupling", fixed)
    assert found.slope == pytest.approx(theirs.params["rate"], rel=1e-10)
    assert [found.low, found.high] == pytest.approx(list(theirs.conf_int().loc["rate"]), rel=1e-8)


def test_its_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for seed in range(400):
        found = effect(members(0.2, seed), "rate", "coupling", ["decay", "seed"])
        held += found.low <= 0.5 <= found.high
    # 95 % of 400, three standard deviations of a binomial.
    assert abs(held - 380) < 3 * (400 * 0.95 * 0.05) ** 0.5


def test_what_cannot_be_told_is_nan() -> None:
    table = members(0.1)
    assert np.isnan(effect(table.assign(rate=1.0), "rate", "coupling").slope)
    assert np.isnan(effect(table, "rate", "coupling", ["rate"]).slope)
    two = effect(table.iloc[[0, 6]], "rate", "coupling")
    assert np.isfinite(two.slope)
    assert np.isnan(two.low)
