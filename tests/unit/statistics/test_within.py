"""Pooled and within: against least squares written out, and truths that were planted."""

import numpy as np
import pandas as pd
import pytest
from many_models import points, scores
from scipy import stats

from blockcoupling.statistics.within import (
    ALIKE,
    COLUMNS,
    VERDICTS,
    pooled_and_within,
    within_groups,
)


def suite(
    seed: int,
    *,
    sizes: tuple[int, ...] = (6, 6, 6, 6, 6),
    effect: float = 0.0,
    confounding: float = 0.0,
    of_groups: float = 0.0,
    checkpoints: int = 1,
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame, np.ndarray]:
    """Models of some depths: y = effect · x + what the depth adds + noise.

    x has a part that the depth decides; `confounding` is what that part adds to y besides x, and
    `of_groups` what depths have of their own, whatever their x. Checkpoints of a model share all
    but a little.
    """
    random = np.random.default_rng(seed)
    depth = np.repeat(np.arange(len(sizes)), sizes)
    common = random.normal(size=len(sizes))
    x = common[depth] + random.normal(size=len(depth))
    y = confounding * common[depth] + of_groups * random.normal(size=len(sizes))[depth]
    y += random.normal(size=len(depth))
    model = np.arange(len(depth))
    depth, model, x, y = (np.repeat(v, checkpoints) for v in (depth, model, x, y))
    if checkpoints > 1:
        x, y = (v + 0.3 * random.normal(size=len(v)) for v in (x, y))
    return x, y + effect * x, pd.DataFrame({"depth": depth}), model


def least_squares(columns: list[np.ndarray], y: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Coefficients, standard errors and degrees of freedom, written out."""
    design = np.column_stack(columns)
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    freedom = len(y) - rank
    left = y - design @ coefficients
    covariance = left @ left / freedom * np.linalg.inv(design.T @ design)
    return coefficients, np.sqrt(np.diag(covariance)), freedom


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6, 6), (9, 1, 3, 5, 2)])
def test_slopes_are_those_of_least_squares_with_a_constant_for_each_group(sizes):
    x, y, depth, model = suite(1, sizes=sizes, effect=0.5, confounding=-1)
    found = pooled_and_within(x, y, depth, model)
    x, y = ((v - v.mean()) / v.std() for v in (x, y))
    groups = depth["depth"].to_numpy()
    dummies = [(groups == g).astype(float) for g in range(len(sizes))]
    one = np.ones(len(x))
    for name, columns in {"pooled": [x, one], "within": [x, *dummies]}.items():
        b, error, freedom = least_squares(columns, y)
        reach = stats.t.ppf(0.975, freedom) * error[0]
        # The same sums in float64, in another order.
        assert found[name] == pytest.approx(b[0], abs=1e-12)
        assert found[f"{name}_low"] == pytest.approx(b[0] - reach, abs=1e-12)
        assert found[f"{name}_high"] == pytest.approx(b[0] + reach, abs=1e-12)
        assert found[f"{name}_p"] == pytest.approx(2 * stats.t.sf(abs(b[0] / error[0]), freedom))
    # Mundlak's regression: its two coefficients are the slopes within and between.
    mean = np.array([x[groups == g].mean() for g in groups])
    b, _, _ = least_squares([x - mean, mean, one], y)
    assert (found["within"], found["between"]) == pytest.approx(tuple(b[:2]), abs=1e-12)
    assert found["contrast"] == pytest.approx(b[1] - b[0], abs=1e-12)
    # Pooled, it is their mean weighted by how much of the spread of x is between: equal, or not.
    share = mean.var() / x.var()
    assert found["pooled"] == pytest.approx(share * b[1] + (1 - share) * b[0], abs=1e-12)
    y_mean = np.array([y[groups == g].mean() for g in groups])
    assert found["within_r"] == pytest.approx(stats.pearsonr(x - mean, y - y_mean).statistic)


def test_the_difference_between_and_within_is_welchs():
    x, y, depth, model = suite(3, effect=0.5)
    found = pooled_and_within(x, y, depth, model)
    error = {}
    for name, freedom in (("within", 24), ("between", 3)):
        reach = found[f"{name}_high"] - found[name]
        error[name] = reach / stats.t.ppf(0.975, freedom)
    # SciPy's own Welch test of two means with these errors: of n = freedom + 1 numbers each.
    expected = stats.ttest_ind_from_stats(
        found["between"], error["between"] * 2, 4, found["within"], error["within"] * 5, 25, False
    )
    assert found["contrast_p"] == pytest.approx(expected.pvalue, rel=1e-9)


def test_errors_with_checkpoints_are_of_models_left_out_one_by_one():
    x, y, depth, model = suite(2, effect=0.5, checkpoints=4, sizes=(5, 4, 3, 4))
    found = pooled_and_within(x, y, depth, model)
    x, y = ((v - v.mean()) / v.std() for v in (x, y))
    groups = depth["depth"].to_numpy()
    for name, held in {
        "pooled": [np.ones(len(x))],
        "within": [(groups == g).astype(float) for g in range(4)],
    }.items():
        slopes = []
        for left_out in range(16):
            kept = model != left_out
            columns = [np.asarray(each)[kept] for each in (x, *held)]
            slopes.append(np.linalg.lstsq(np.column_stack(columns), y[kept], rcond=None)[0][0])
        error = np.sqrt(15 / 16 * np.square(np.array(slopes) - np.mean(slopes)).sum())
        reach = stats.t.ppf(0.975, 16 - len(held)) * error
        assert found[f"{name}_high"] - found[name] == pytest.approx(reach, rel=1e-9)


def test_an_effect_within_groups_is_found_and_its_interval_holds_it():
    """Confounding of the opposite sign does not touch the estimate within."""
    held, found = [], []
    for seed in range(200):
        x, y, depth, model = suite(seed, effect=1, confounding=-4, of_groups=1)
        row = pooled_and_within(x, y, depth, model)
        truth = x.std() / y.std()  # slopes are in standard deviations
        held.append(row["within_low"] < truth < row["within_high"])
        found.append(row["within_p"] < 0.05)
    # 95 % ± 1.5 % expected of 200; an effect of five standard errors is hardly missed.
    assert 0.90 <= np.mean(held) <= 0.99
    assert np.mean(found) > 0.95


@pytest.mark.parametrize("checkpoints", [1, 6])
def test_a_confounder_between_groups_is_not_taken_for_an_effect(checkpoints):
    rows = [
        pooled_and_within(*suite(seed, confounding=3, checkpoints=checkpoints))
        for seed in range(200)
    ]
    assert np.mean([row["pooled_p"] < 0.05 for row in rows]) > 0.8  # pooled, it looks like one
    # 5 % expected of 200 exact tests: 20 or more in one case of 500.
    assert np.mean([row["within_p"] < 0.05 for row in rows]) < 0.1


@pytest.mark.parametrize("of_groups", [0, 1])
def test_where_slopes_are_equal_they_are_seldom_said_to_differ(of_groups):
    rows = [
        pooled_and_within(*suite(seed, effect=0.5, of_groups=of_groups, sizes=(5,) * 8))
        for seed in range(200)
    ]
    # 5 % expected: 20 or more of 200 in one case of 500.
    assert np.mean([row["contrast_p"] < 0.05 for row in rows]) < 0.1


def test_simpsons_paradox_is_named():
    """Deeper models couple less and score better; at fixed depth coupling helps the score."""
    random = np.random.default_rng(5)
    depth = np.repeat([4.0, 8, 12, 16, 20], 8)
    own = random.normal(size=40)
    x = own - depth
    y = own + 3 * depth + 0.3 * random.normal(size=40)
    found = within_groups(points(x, depth), scores(y))
    assert list(found) == list(COLUMNS)
    coupling = found[found["predictor"] == "coupling"].set_index("alike")
    at = coupling.loc["depth"]
    assert at["pooled_high"] < 0 < at["within_low"]
    assert at["verdict"] == "opposite"
    assert at["contrast_p_adjusted"] < 1e-6
    # All are of one width, so that nothing can be said within it.
    assert coupling["verdict"]["width"] == "cannot be told"
    assert coupling["note"]["width"] == "all are of one width"
    assert np.isnan(coupling["within"]["width"])
    assert coupling["within"]["size"] == at["within"]  # a size is then a depth
    noise = found[found["predictor"].isin(["s1", "equidistance"]) & found["alike"].eq("depth")]
    assert (noise["verdict"] == "not told apart").all()
    depths = found[(found["predictor"] == "depth") & (found["alike"] == "depth")].squeeze()
    assert depths["note"] == "the predictor does not differ within a depth"
    assert set(found["verdict"]) <= set(VERDICTS)


def test_p_values_are_adjusted_for_the_predictors_of_one_grouping():
    random = np.random.default_rng(1)
    depth = np.repeat([4.0, 8, 12, 16], 5)
    found = within_groups(points(random.normal(size=20), depth), scores(random.normal(size=20)))
    own = found[found["alike"] == "depth"]
    given = own["within_p"].dropna()
    order = given.sort_values()
    steps = np.minimum(1, np.maximum.accumulate(order * np.arange(len(order), 0, -1)))
    np.testing.assert_allclose(own["within_p_adjusted"][order.index], steps)  # Holm's, by hand
    assert (own["comparisons"] == len(given)).all()


def test_it_is_said_why_something_cannot_be_told():
    random = np.random.default_rng(0)

    def note(x, y, depth, model=None):
        found = pooled_and_within(
            x, y, pd.DataFrame({"depth": depth}), range(len(x)) if model is None else model, "depth"
        )
        return found["note"], found

    x, y = random.normal(size=(2, 8))
    said, found = note(x, y, [4, 4, 6, 6, 8, 8, 10, 10])
    assert said == "no depth has 3 or more independent models"
    assert np.isfinite(found["pooled_low"])
    assert np.isnan(found["within"])
    said, found = note(x, y, [4, 4, 4, 4, 6, 6, 6, 6])
    assert said == "2 depths: too few for a slope between them, at least 4 are needed"
    assert np.isfinite(found["within_low"])
    assert np.isnan(found["contrast"])
    # Eight checkpoints of two models: a slope, and nobody knows how sure.
    said, found = note(x, y, [4] * 8, [0, 0, 0, 0, 1, 1, 1, 1])
    assert said == "2 independent models: too few for an interval; all are of one depth"
    assert np.isfinite(found["pooled"])
    assert np.isnan(found["pooled_low"])
    assert note(x, np.ones(8), [4] * 8)[0] == "constant score: no slope"
    assert note(x[:2], y[:2], [4, 4])[0] == "n = 2: nothing to compare"
    assert note(x, y, [4.0] * 4 + [np.nan] * 4)[0].startswith("4 of 8 points lack a finite value")


def test_no_scores_no_rows():
    found = within_groups(points(np.arange(4.0), np.arange(1.0, 5)), scores(np.ones(4)).iloc[:0])
    assert found.empty
    assert list(found) == list(COLUMNS)
    assert set(ALIKE) == {"depth", "width", "size", "family"}


def test_points_on_a_line_are_not_called_too_few():
    x = np.array([0.0, 1, 2, 5, 1, 3, 4, 8])
    found = pooled_and_within(
        x, 2 * x + 1, pd.DataFrame({"depth": [4] * 4 + [6] * 4}), range(8), "depth"
    )
    assert found["pooled"] == pytest.approx(1)
    assert np.isnan(found["pooled_low"])
    line = "points lie on a line: no error to estimate, no interval"
    assert found["note"].split("; ") == [
        *(line, line, "2 depths: too few for a slope between them, at least 4 are needed")
    ]
