"""Correlation by permuted blocks, against SciPy, all permutations by hand, and known truths."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from blockcoupling.lab.ablation.mantel import mantel
from blockcoupling.statistics.partial import partial_correlation

DRAWS = 199


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
    found = mantel(y, x, permutations=DRAWS)
    assert found.rho == pytest.approx(spearmanr(y[there], x[there]).statistic, abs=1e-12)
    assert found.entries == there.sum()
    held = mantel(y, x, [distances(9)], permutations=DRAWS)
    ranks = [rankdata(each[there]) for each in (x, y, distances(9))]
    assert held.rho == pytest.approx(partial_correlation(*ranks).r, abs=1e-12)


@pytest.mark.parametrize("blocks", [5, 6])
@pytest.mark.parametrize("held", [False, True])
def test_p_is_that_of_all_permutations(blocks: int, held: bool) -> None:
    random = np.random.default_rng(blocks)
    y, x, z = noise(blocks, random), noise(blocks, random), distances(blocks)
    off = ~np.eye(blocks, dtype=bool)
    rank_y, rank_x, rank_z = (rankdata(each[off]) for each in (y, x, z))
    if held:
        rank_x = rank_x - np.polyval(np.polyfit(rank_z, rank_x, 1), rank_z)
    left = np.zeros((blocks, blocks))
    left[off] = rank_x

    def statistic(order: tuple[int, ...]) -> float:
        moved = left[np.ix_(order, order)][off]
        if held:
            return partial_correlation(moved, rank_y, rank_z).r
        return float(np.corrcoef(moved, rank_y)[0, 1])

    every = np.array([statistic(order) for order in permutations(range(blocks))])
    wanted = (np.abs(every) >= abs(every[0]) - 1e-9).mean()
    found = mantel(y, x, [z] if held else [], permutations=9999)
    assert found.exact
    assert found.permutations == len(every)
    assert found.p == pytest.approx(wanted, abs=1e-12)
    drawn = mantel(y, x, [z] if held else [], permutations=len(every) - 1)
    assert not drawn.exact
    # The share of some hundred draws: four standard errors.
    assert abs(drawn.p - wanted) < 4 * np.sqrt(wanted / drawn.permutations) + 1 / len(every)


def test_vectors_over_blocks_are_permuted_too() -> None:
    y, x = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 3, 5, 4])
    found = mantel(y, x)
    assert found.rho == pytest.approx(spearmanr(y, x).statistic)
    every = [abs(spearmanr(y, order).statistic) for order in permutations(x)]
    assert found.p == pytest.approx(np.mean(np.array(every) >= found.rho - 1e-9))


def rejected(furthest: int | None, effect: float, given: bool, trials: int = 200) -> float:
    """How often p ≤ 0.1, where x and y both follow the distance, and y also `effect` · x's own."""
    random = np.random.default_rng(7)
    z, count = distances(12), 0
    for trial in range(trials):
        own = noise(12, random)
        x = own + 0.5 * z
        y = effect * own + noise(12, random) + 0.5 * z
        held = [z] if given else []
        found = mantel(within(y, furthest, True), x, held, permutations=DRAWS, seed=trial)
        count += found.p <= 0.1
    return count / trials


@pytest.mark.parametrize("furthest", [None, 4])
def test_distance_alone_is_not_taken_for_coupling(furthest: int | None) -> None:
    # Of 200 trials at a level of 0.1, four standard errors are 0.085.
    assert rejected(furthest, 0.0, given=True) <= 0.185
    assert rejected(furthest, 0.0, given=False) > 0.5 or furthest is not None


@pytest.mark.parametrize("furthest", [None, 4])
def test_a_planted_effect_is_found(furthest: int | None) -> None:
    assert rejected(furthest, 1.0, given=True, trials=60) > 0.8


def test_what_is_missing_is_left_out() -> None:
    random = np.random.default_rng(3)
    y, x = noise(8, random), noise(8, random)
    x[2] = x[:, 2] = np.nan  # an idle block has no coupling
    kept = np.delete(np.arange(8), 2)
    found = mantel(y, x, permutations=DRAWS)
    alone = mantel(y[np.ix_(kept, kept)], x[np.ix_(kept, kept)], permutations=DRAWS)
    assert found.entries == alone.entries == 42
    assert found.rho == pytest.approx(alone.rho, abs=1e-12)
    assert 0 < found.p <= 1


def test_what_is_missing_is_left_out_with_something_held_fixed_too() -> None:
    random = np.random.default_rng(7)
    y, x, z = noise(6, random), noise(6, random), distances(6)
    x[2, 4] = x[4, 2] = x[0, 1] = np.nan
    off = ~np.eye(6, dtype=bool)
    own = off & np.isfinite(x)
    # Distances that x lacks are among those that it has: each has the rank that it has there.
    ranked = {value: rankdata(z[own])[z[own] == value][0] for value in np.unique(z[own])}
    rank_z = np.vectorize(lambda value: ranked.get(value, np.nan))(z)
    rank_y = np.full((6, 6), np.nan)
    rank_y[off] = rankdata(y[off])
    left = np.full((6, 6), np.nan)
    ranks = rankdata(x[own])
    left[own] = ranks - np.polyval(np.polyfit(rank_z[own], ranks, 1), rank_z[own])

    def statistic(order: tuple[int, ...]) -> float:
        moved = left[np.ix_(order, order)]
        there = off & np.isfinite(moved)
        return partial_correlation(moved[there], rank_y[there], rank_z[there]).r

    every = np.array([statistic(order) for order in permutations(range(6))])
    found = mantel(y, x, [z], permutations=9999)
    assert found.exact
    assert found.entries == 27
    assert found.p == pytest.approx((np.abs(every) >= abs(every[0]) - 1e-9).mean(), abs=1e-12)


def test_the_seed_decides() -> None:
    random = np.random.default_rng(5)
    y, x = noise(9, random), noise(9, random)
    one, same, other = (mantel(y, x, permutations=DRAWS, seed=seed).p for seed in (1, 1, 2))
    assert one == same != other


def test_nothing_is_said_of_a_constant_or_of_too_few() -> None:
    random = np.random.default_rng(6)
    y = noise(6, random)
    assert np.isnan(mantel(y, np.ones((6, 6))).p)
    x = noise(6, random)
    determined = mantel(y, x, [np.exp(x)])  # the same ranks: nothing of x is left
    assert np.isnan(determined.rho)
    assert np.isnan(determined.p)
    assert np.isnan(mantel(y[:2, :2], noise(2, random)).rho)
