"""Paired statistics against SciPy and statsmodels, and against simulations whose truth is known."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from blockcoupling.lab.intervention.paired import (
    detectable,
    equivalence_power,
    paired_difference,
    pairs_for_equivalence,
    slope_in_pairs,
)

RANDOM = np.random.default_rng(5)


def test_difference_is_the_paired_t_test_and_equivalence_that_of_statsmodels() -> None:
    a, b = RANDOM.normal(2, 1, 9), RANDOM.normal(1.7, 1, 9)
    row = paired_difference(a, b, smallest=0.8)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert row["estimate"] == pytest.approx((a - b).mean(), rel=1e-12)
    assert row["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert row["p_equivalent"] == pytest.approx(ttost_paired(a, b, -0.8, 0.8)[0], rel=1e-9)
    assert np.isnan(paired_difference(a, b)["p_equivalent"])


def test_pairs_that_lack_a_value_are_left_out_and_counted() -> None:
    a, b = np.array([1.0, 2, np.nan, 4]), np.array([0.5, np.nan, 1, 3])
    row = paired_difference(a, b)
    assert row["pairs"] == 2
    assert row["estimate"] == 0.75


@pytest.mark.parametrize(("values", "word"), [([1.0], "two pairs"), ([1.0, 1.0, 1.0], "the same")])
def test_what_cannot_be_tested_says_so(values: list[float], word: str) -> None:
    row = paired_difference(values, np.zeros(len(values)), 0.1)
    assert word in row["note"]
    assert np.isnan(row["p"])
    assert np.isnan(row["p_equivalent"])


def test_a_small_effect_is_both_there_and_too_small_to_matter() -> None:
    difference = 0.01 + RANDOM.normal(0, 0.002, 12)
    row = paired_difference(difference, np.zeros(12), smallest=0.05)
    assert row["p"] < 0.001
    assert row["p_equivalent"] < 0.001


@given(st.integers(0, 10_000), st.floats(-3, 3))
def test_offsets_of_sets_change_no_slope(seed: int, slope: float) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(5, 4))
    noise = random.normal(0, 0.1, x.shape)
    sets = np.repeat(np.arange(5), 4)
    offsets = 10 * random.normal(size=(5, 1)) + 7 * x.mean(1, keepdims=True)
    plain = slope_in_pairs(x.ravel(), (slope * x + noise).ravel(), sets)
    moved = slope_in_pairs(x.ravel(), (slope * x + noise + offsets).ravel(), sets)
    # Rounding of numbers of the offsets' size.
    assert moved["estimate"] == pytest.approx(plain["estimate"], abs=1e-9)
    assert (plain["pairs"], plain["points"]) == (5, 20)


def test_a_planted_slope_is_found_and_a_planted_confounder_is_none() -> None:
    """Over 200 studies the interval holds the truth in 95 % (binomial error 1.5 %)."""
    held = {"effect": 0, "confounder": 0}
    for _ in range(200):
        quality = RANDOM.normal(size=6)  # of a seed: raises both x and y
        x = quality[:, None] + np.linspace(-1, 1, 5) + RANDOM.normal(0, 0.1, (6, 5))
        sets = np.repeat(np.arange(6), 5)
        noise = RANDOM.normal(0, 0.2, x.shape)
        effect = slope_in_pairs(x.ravel(), (0.5 * x + quality[:, None] + noise).ravel(), sets)
        alone = slope_in_pairs(x.ravel(), (3 * quality[:, None] + noise).ravel(), sets)
        held["effect"] += effect["low"] < 0.5 < effect["high"]
        held["confounder"] += alone["low"] < 0 < alone["high"]
        assert effect["low"] > 0
    assert stats.pearsonr(x.ravel(), (3 * quality[:, None] + noise).ravel()).statistic > 0.5
    for times in held.values():
        assert times / 200 == pytest.approx(0.95, abs=0.05)


def test_a_set_without_two_different_x_has_no_slope() -> None:
    row = slope_in_pairs([1, 1, 0, 1], [3, 4, 0, 2], ["a", "a", "b", "b"])
    assert row["pairs"] == 1
    assert row["estimate"] == pytest.approx(2)


def test_the_slope_is_that_of_least_squares_with_a_constant_for_each_pair() -> None:
    random = np.random.default_rng(1)
    x, sets = random.normal(size=24), np.repeat(list("abcdef"), 4)
    y = 0.4 * x + random.normal(size=24) + np.repeat(random.normal(size=6), 4)
    row = slope_in_pairs(x, y, sets)

    def fit(kept: np.ndarray) -> float:
        constants = (sets[kept, None] == np.unique(sets[kept])).astype(float)
        return float(sm.OLS(y[kept], np.column_stack([x[kept], constants])).fit().params[0])

    assert row["estimate"] == pytest.approx(fit(np.full(24, True)))
    without = np.array([fit(sets != each) for each in "abcdef"])
    error = np.sqrt(5 / 6 * np.square(without - without.mean()).sum())
    reach = stats.t.ppf(0.975, 5) * error
    assert row["high"] - row["estimate"] == pytest.approx(reach)
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(row["estimate"] / error), 5))


def test_a_pair_whose_dose_did_not_take_hardly_counts() -> None:
    random = np.random.default_rng(4)
    x = np.tile(np.linspace(-1, 1, 5), (6, 1))
    x[0] *= 1e-3  # its own slope is noise divided by nearly nothing
    y = 0.1 * x + 0.02 * random.normal(size=x.shape)
    assert abs(np.mean([np.polyfit(a, b, 1)[0] for a, b in zip(x, y, strict=True)])) > 0.5
    row = slope_in_pairs(x.ravel(), y.ravel(), np.repeat(np.arange(6), 5))
    assert row["low"] < 0.1 < row["high"]
    assert row["high"] - row["low"] < 0.1
    assert row["note"] == "1 of 6 pairs hardly differ in coupling, and hardly count"


@pytest.mark.parametrize("pairs", [3, 6, 25])
def test_the_detectable_difference_is_found_four_times_in_five(pairs: int) -> None:
    """Of 20 000 simulated studies; the binomial error of the share is 0.003."""
    random = np.random.default_rng(pairs)
    values = random.normal(detectable(2.0, pairs), 2.0, (20_000, pairs))
    assert (stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(
        0.8, abs=0.01
    )


@pytest.mark.parametrize(("pairs", "smallest"), [(3, 0.2), (6, 0.05), (6, 0.02), (25, 0.011)])
def test_the_power_of_equivalence_is_that_of_simulated_studies(pairs: int, smallest: float) -> None:
    """20 000 studies without an effect: binomial error 0.0035."""
    random = np.random.default_rng(pairs)
    values = random.normal(0, 0.027, (20_000, pairs))
    reach = stats.t.ppf(0.95, pairs - 1) * values.std(axis=1, ddof=1) / np.sqrt(pairs)
    share = (np.abs(values.mean(1)) + reach < smallest).mean()
    assert equivalence_power(0.027, smallest, pairs) == pytest.approx(share, abs=0.012)


@pytest.mark.parametrize("smallest", [0.02, 0.1, 5])
def test_the_pairs_for_equivalence_are_just_enough(smallest: float) -> None:
    count = pairs_for_equivalence(0.1, smallest)
    assert equivalence_power(0.1, smallest, count) >= 0.8
    assert count == 2 or equivalence_power(0.1, smallest, count - 1) < 0.8
    row = paired_difference(np.random.default_rng(0).normal(0, 0.1, 9), np.zeros(9), smallest)
    assert row["pairs_for_equivalence"] == pairs_for_equivalence(row["sd"], smallest)
    assert row["detectable"] == detectable(row["sd"], 9)


def test_lost_pairs_and_infinite_values_are_said() -> None:
    row = paired_difference([1.0, np.inf, 3, 4.5, np.nan], np.zeros(5))
    assert row["pairs"] == 3
    assert row["note"] == "2 of 5 pairs lack a finite value"
