"""Correlation tested by shifted block orders: against SciPy, by hand, and by simulation."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from blockcoupling.lab.ablation.shifts import shift_test
from blockcoupling.statistics.partial import partial_correlation

BLOCKS = 30


def distances(blocks: int) -> np.ndarray:
    place = np.arange(blocks, dtype=float)
    return np.abs(place[:, None] - place)


def noise(blocks: int, random: np.random.Generator, shared: float = 1.0) -> np.ndarray:
    """Entries that share rows and columns, as every matrix over blocks does."""
    a, b = shared * random.normal(size=(2, blocks))
    return random.normal(size=(blocks, blocks)) + a[:, None] + b


def within(y: np.ndarray, furthest: int | None, upper: bool = False) -> np.ndarray:
    y = y.copy()
    if furthest is not None:
        y[distances(len(y)) > furthest] = np.nan
    if upper:
        y[np.tril_indices(len(y))] = np.nan
    return y


@pytest.mark.parametrize("furthest", [None, 2])
@pytest.mark.parametrize("upper", [False, True])
def test_rho_is_scipys(furthest: int | None, upper: bool) -> None:
    random = np.random.default_rng(0)
    y, x = within(noise(9, random), furthest, upper), noise(9, random).round(1)  # with ties
    there = np.isfinite(y) & ~np.eye(9, dtype=bool)
    found = shift_test(y, x)
    assert found.rho == pytest.approx(spearmanr(y[there], x[there]).statistic, abs=1e-12)
    assert found.entries == there.sum()
    held = shift_test(y, x, [distances(9)])
    ranks = [rankdata(each[there]) for each in (x, y, distances(9))]
    assert held.rho == pytest.approx(partial_correlation(*ranks).r, abs=1e-12)


@pytest.mark.parametrize("held", [False, True])
def test_p_is_that_of_all_shifts_and_reflections_by_hand(held: bool) -> None:
    random = np.random.default_rng(6)
    y, x, z = noise(7, random), noise(7, random), distances(7)
    every = []
    for reflected in (False, True):
        for shift in range(7):
            order = [(each + shift) % 7 for each in range(7)]
            order = order[::-1] if reflected else order
            pairs = [
                (y[i, j], x[order[i], order[j]], z[i, j])
                for i in range(7)
                for j in range(7)
                if i != j and abs(order[i] - order[j]) == abs(i - j)
            ]
            a, b, c = (rankdata(each) for each in zip(*pairs, strict=True))
            every.append(partial_correlation(b, a, c if held else np.empty((len(a), 0))).r)
    found = shift_test(y, x, [z] if held else [])
    assert found.permutations == 14
    assert found.p == pytest.approx((np.abs(every) >= abs(every[0]) - 1e-9).mean(), abs=1e-12)


def test_vectors_over_blocks_are_shifted_too() -> None:
    y, x = np.array([1.0, 2, 3, 4, 6, 5]), np.array([2.0, 1, 3, 5, 4, 6])
    found = shift_test(y, x)
    assert found.rho == pytest.approx(spearmanr(y, x).statistic)
    every = [spearmanr(y, np.roll(x[::way], n)).statistic for way in (1, -1) for n in range(6)]
    assert found.p == pytest.approx(np.mean(np.abs(every) >= found.rho - 1e-9))


def profile(random: np.random.Generator, lag: float) -> np.ndarray:
    """A stationary autoregressive profile over depth."""
    steps = random.normal(size=BLOCKS)
    values = [steps[0]]
    for step in steps[1:]:
        values.append(lag * values[-1] + np.sqrt(1 - lag**2) * step)
    return np.array(values)


@pytest.mark.parametrize("lag", [0, 0.5, 0.8])
@pytest.mark.parametrize("held", [False, True])
def test_level_where_neighbouring_blocks_resemble_each_other(lag: float, held: bool) -> None:
    """Free permutations give p ≤ 0.05 in 6, 15 and 29 % of such matrices."""
    random = np.random.default_rng(7)
    rejected = 0
    for _ in range(100):
        a, b = profile(random, lag), profile(random, lag)
        y = within(a[:, None] + a + 0.5 * random.normal(size=(BLOCKS, BLOCKS)), 4, upper=True)
        x = b[:, None] + b + 0.5 * random.normal(size=(BLOCKS, BLOCKS))
        rejected += shift_test(y, x, [distances(BLOCKS)] if held else []).p <= 0.05
    # Of 100 trials at 5 %, three standard errors are 6.5 %.
    assert rejected / 100 <= 0.115


def test_profiles_that_share_a_shape_over_depth_are_told_apart_by_position() -> None:
    """Both are U-shaped in depth and have nothing else in common."""
    random = np.random.default_rng(5)
    place = (np.arange(BLOCKS) - 14.5) / 14.5
    middle = (place[:, None] + place) / 2
    position = [middle, middle**2]
    alone = controlled = 0
    for _ in range(100):
        a, b = place**2 + 0.15 * random.normal(size=(2, BLOCKS))
        y, x = within(a[:, None] + a, 4, upper=True), b[:, None] + b
        alone += shift_test(y, x, [distances(BLOCKS)]).p <= 0.05
        controlled += shift_test(y, x, [distances(BLOCKS), *position]).p <= 0.05
    assert alone > 30
    assert controlled <= 11.5


@pytest.mark.parametrize("furthest", [None, 4])
def test_distance_alone_is_not_taken_for_coupling_and_an_effect_is_found(
    furthest: int | None,
) -> None:
    random = np.random.default_rng(7)
    z, rejected = distances(16), {0.0: 0, 1.0: 0}
    for _ in range(60):
        own = noise(16, random)
        for effect in rejected:
            y = effect * own + noise(16, random) + 0.5 * z
            rejected[effect] += shift_test(within(y, furthest, True), own + 0.5 * z, [z]).p <= 0.1
    # Of 60 trials at a level of 0.1, three standard errors are 0.12.
    assert rejected[0.0] / 60 <= 0.22
    assert rejected[1.0] / 60 > 0.8


def test_what_is_missing_is_left_out() -> None:
    random = np.random.default_rng(3)
    y, x, z = noise(8, random), noise(8, random), distances(8)
    x[2] = x[:, 2] = np.nan  # a block with zero Jacobian has no coupling
    kept = np.delete(np.arange(8), 2)
    there = np.ix_(kept, kept)
    for held in ([], [z]):
        found = shift_test(y, x, held)
        alone = shift_test(y[there], x[there], [each[there] for each in held])
        assert found.entries == alone.entries == 42
        assert found.rho == pytest.approx(alone.rho, abs=1e-12)
        assert 0 < found.p <= 1


def test_nothing_is_said_of_a_constant_or_of_too_few() -> None:
    random = np.random.default_rng(6)
    y = noise(6, random)
    assert np.isnan(shift_test(y, np.ones((6, 6))).p)
    x = noise(6, random)
    determined = shift_test(y, x, [np.exp(x)])  # the same ranks: nothing of x is left
    assert np.isnan(determined.rho)
    assert np.isnan(determined.p)
    assert np.isnan(shift_test(y[:2, :2], noise(2, random)).rho)
