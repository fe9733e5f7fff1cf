"""Rankings on a grid of factors: against SciPy and scikit-learn by hand, and planted truths."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau
from sklearn.metrics import mutual_info_score

from blockcoupling.statistics.ranking import factor_codes, rank

GRID = np.array(list(product(range(2), range(3), range(3))))


def test_numbers_are_those_of_their_definitions() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, len(GRID)))
    x += y
    found = rank(x, y, GRID)

    coefficients = []
    for factor in range(3):
        others = [each for each in range(3) if each != factor]
        cells = [
            kendalltau(x[cell], y[cell]).statistic
            for values in np.unique(GRID[:, others], axis=0)
            for cell in [(GRID[:, others] == values).all(axis=1)]
        ]
        coefficients.append(np.mean(cells))
    assert found.kendall_granulated == pytest.approx(np.mean(coefficients))

    pairs = [(i, j) for i, j in product(range(len(GRID)), repeat=2) if i != j]
    signs = np.array([[np.sign(v[i] - v[j]) for v in (x, y)] for i, j in pairs])
    least = np.inf
    for size in range(3):
        for given in combinations(range(3), size):
            keys = [tuple(GRID[i, [*given]]) + tuple(GRID[j, [*given]]) for i, j in pairs]
            information = entropy = 0.0
            for key in set(keys):
                own = signs[[each == key for each in keys]]
                information += len(own) / len(pairs) * mutual_info_score(own[:, 0], own[:, 1])
                entropy += len(own) / len(pairs) * mutual_info_score(own[:, 1], own[:, 1])
            least = min(least, information / entropy)
    assert found.conditional_information == pytest.approx(least)

    worst = 0.0
    for factor in range(3):
        for low, high in combinations(range(GRID[:, factor].max() + 1), 2):
            wrong = [
                (x[i] - x[j]) * (y[i] - y[j]) < 0
                for i, j in pairs
                if (GRID[i, factor], GRID[j, factor]) == (low, high)
                and (np.delete(GRID[i], factor) == np.delete(GRID[j], factor)).all()
            ]
            worst = max(worst, np.mean(wrong))
    assert found.robust_sign_error == pytest.approx(worst)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_predictor_that_ranks_all_settings_is_perfect(direction: int) -> None:
    y = np.random.default_rng(1).normal(size=len(GRID))
    assert rank(direction * np.exp(y), y, GRID) == pytest.approx((direction, 1, 0))


def test_a_predictor_that_knows_one_factor_only_has_no_information_given_it() -> None:
    """Both follow the first factor; within its values they are unrelated."""
    grid = np.array(list(product(range(4), range(4), range(4))))
    a, b = 10 * grid[:, 0] + np.random.default_rng(2).normal(size=(2, 64))
    assert kendalltau(a, b).statistic > 0.7
    found = rank(a, b, grid)
    assert found.conditional_information < 0.05
    assert found.kendall_granulated < 0.6
    assert found.robust_sign_error > 0.3


def test_seeds_are_averaged_and_are_no_factor() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(2, len(GRID)))
    noise = random.normal(size=(2, len(GRID)))
    points = pd.DataFrame(np.tile(GRID, (2, 1)), columns=["factor.a", "factor.b", "factor.c"])
    points["factor.seed"] = np.repeat([0, 1], len(GRID))
    points["factor.rate"] = np.arange(len(points))  # drawn, on no grid
    codes = factor_codes(points)
    assert codes.shape == (36, 3)
    twice = rank(
        np.append(x + noise[0], x - noise[0]), np.append(y + noise[1], y - noise[1]), codes
    )
    assert twice == pytest.approx(rank(x, y, GRID))


def test_without_a_grid_there_is_no_number() -> None:
    nothing = factor_codes(pd.DataFrame({"factor.rate": np.arange(4.0)}))
    assert np.isnan(rank(np.arange(4), np.arange(4), nothing)).all()
    assert np.isnan(rank(np.ones(18), np.arange(18), GRID)).all()
