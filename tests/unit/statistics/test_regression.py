"""One predictor against one score: against SciPy and statsmodels, and what is said without."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from blockcoupling.statistics.partial import partial_correlation
from blockcoupling.statistics.regression import is_constant, jackknife, relate, squared

# R. A. Fisher's iris, first setosa flowers: sepal length, sepal width, petal length.
SEPAL_LENGTH = [5.1, 4.9, 4.7, 4.6, 5.0, 5.4, 4.6, 5.0, 4.4, 4.9]
SEPAL_WIDTH = [3.5, 3.0, 3.2, 3.1, 3.6, 3.9, 3.4, 3.4, 2.9, 3.1]
PETAL_LENGTH = [1.4, 1.4, 1.3, 1.5, 1.4, 1.7, 1.4, 1.5, 1.4, 1.5]


def test_line_and_correlations_are_those_of_least_squares():
    found = relate(SEPAL_LENGTH, SEPAL_WIDTH)
    fit = sm.OLS(SEPAL_WIDTH, sm.add_constant(SEPAL_LENGTH)).fit()
    expected = {
        "intercept": fit.params[0],
        "slope": fit.params[1],
        "r2": fit.rsquared,
        "pearson": stats.pearsonr(SEPAL_LENGTH, SEPAL_WIDTH).statistic,
        "pearson_p": fit.pvalues[1],
        "spearman": stats.spearmanr(SEPAL_LENGTH, SEPAL_WIDTH).statistic,
        "spearman_p": stats.spearmanr(SEPAL_LENGTH, SEPAL_WIDTH).pvalue,
    }
    # Two float64 algorithms for the same ten numbers.
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-10)
    assert (found["n"], found["units"], found["note"]) == (10, 10, "")


def test_known_values():
    # By hand: x̄ = 2.5, ȳ = 2.75, Sxy = 4.5, Sxx = 5, Syy = 4.75; ranks with one tie.
    found = relate([1, 2, 3, 4], [1, 3, 3, 4])
    assert found["slope"] == pytest.approx(0.9)
    assert found["intercept"] == pytest.approx(0.5)
    assert found["r2"] == pytest.approx(4.5**2 / (5 * 4.75))
    assert found["spearman"] == pytest.approx(4.5 / np.sqrt(5 * 4.5))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_points_have_no_p_value(n):
    found = relate(SEPAL_LENGTH[:n], SEPAL_WIDTH[:n])
    assert all(np.isnan(found[name]) for name in ("pearson_p", "spearman_p", "r2_low", "r2_high"))
    assert found["note"].startswith(f"n = {n}: ")
    assert np.isfinite(found["slope"]) == (n >= 2)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9])
def test_constant_predictor_and_score_are_said(constant):
    about_x = relate(np.full(10, constant), SEPAL_WIDTH)
    about_y = relate(SEPAL_WIDTH, np.full(10, constant))
    assert about_x["note"] == "constant predictor: no correlation, no p-value"
    assert about_y["note"] == "constant score: no correlation, no p-value"
    for found in (about_x, about_y):
        assert np.isnan([found["r2"], found["pearson"], found["pearson_p"]]).all()


def test_rounding_is_no_variation():
    assert is_constant([0.1 + 0.2, 0.3])
    assert not is_constant([0.3, 0.3 + 1e-9])


def test_missing_values_are_left_out_and_counted():
    found = relate([np.nan, *SEPAL_LENGTH], [1.0, *SEPAL_WIDTH])
    assert found["r2"] == pytest.approx(relate(SEPAL_LENGTH, SEPAL_WIDTH)["r2"])
    assert found["note"] == "1 of 11 points lack a finite value"


def test_points_of_one_model_are_called_dependent():
    note = relate(SEPAL_LENGTH, SEPAL_WIDTH, ["a"] * 5 + ["b"] * 5)["note"]
    assert note == "10 points of 2 models only: p-values and intervals by jackknife over them"
    alone = relate(SEPAL_LENGTH, SEPAL_WIDTH, ["a"] * 10)
    assert (
        alone["note"]
        == "10 points of 1 model: no interval, and p-values as if they were independent"
    )
    assert np.isfinite(alone["pearson_p"])
    assert np.isnan(alone["pearson_low"])


def test_jackknife_is_that_of_units_left_out_one_by_one():
    units = np.repeat(list("abcde"), 2)
    x, y, z = (np.array(each) for each in (SEPAL_LENGTH, SEPAL_WIDTH, PETAL_LENGTH))
    for covariates in (None, z[:, None]):

        def r(kept, covariates=covariates):
            held = np.empty((10, 0)) if covariates is None else covariates
            return partial_correlation(x[kept], y[kept], held[kept]).r

        z_values = np.arctanh([r(units != each) for each in "abcde"])
        error = np.sqrt(4 / 5 * np.square(z_values - z_values.mean()).sum())
        whole = np.arctanh(r(np.full(10, True)))
        found = jackknife(x, y, units, np.tanh(whole), covariates)
        reach = stats.t.ppf(0.975, 4) * error
        expected = np.tanh([whole - reach, whole + reach])
        # The same moments in float64, in another order.
        assert found[:2] == pytest.approx(tuple(expected), abs=1e-9)
        assert found.p == pytest.approx(2 * stats.t.sf(abs(whole / error), 4), rel=1e-7)


def families(random, intraclass: float, r: float) -> tuple[np.ndarray, np.ndarray]:
    """Six families of six models, family effects in both variables."""
    covariance = [[1, r], [r, 1]]
    common = random.multivariate_normal([0, 0], covariance, 6)[:, None]
    own = random.multivariate_normal([0, 0], covariance, (6, 6))
    return (np.sqrt(intraclass) * common + np.sqrt(1 - intraclass) * own).reshape(36, 2).T


@pytest.mark.parametrize("intraclass", [0, 0.5, 0.8])
def test_level_and_coverage_where_models_come_in_families(intraclass):
    random = np.random.default_rng(0)
    family = np.repeat(np.arange(6), 6)
    level = [
        relate(*families(random, intraclass, 0), family)["pearson_p"] <= 0.05 for _ in range(200)
    ]
    rows = [relate(*families(random, intraclass, 0.7), family) for _ in range(200)]
    held = [row["r2_low"] <= 0.49 <= row["r2_high"] for row in rows]
    # Three standard errors of 200 trials at 5 % are 4.6 %. Independent points give 39 % and 62 %.
    assert np.mean(level) <= 0.10
    assert np.mean(held) >= 0.90


@pytest.mark.parametrize("n", [8, 16, 48])
@pytest.mark.parametrize("r2", [0, 0.1, 0.5, 0.9])
def test_coverage_of_the_interval_of_r(n, r2):
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        x = random.normal(size=n)
        y = np.sqrt(r2) * x + np.sqrt(1 - r2) * random.normal(size=n)
        found = relate(x, y)
        held += found["pearson_low"] <= np.sqrt(r2) <= found["pearson_high"]
        assert (found["r2_low"] == 0) == (found["pearson_low"] <= 0 <= found["pearson_high"])
    # 95 %, three standard errors of 200 trials.
    assert held / 200 == pytest.approx(0.95, abs=0.047)


def test_a_squared_interval_begins_at_zero_where_the_interval_of_r_has_zero():
    assert squared(-0.2, 0.5) == (0.0, 0.25)
    assert squared(0.2, 0.5) == pytest.approx((0.04, 0.25))
    assert squared(-0.5, -0.2) == pytest.approx((0.04, 0.25))


def test_the_difference_from_coupling_is_that_of_the_same_resamples():
    x, y, z = (np.array(each) for each in (SEPAL_LENGTH, SEPAL_WIDTH, PETAL_LENGTH))
    found = relate(x, y, coupling=z, resamples=500, seed=3)
    r2 = [stats.pearsonr(each, y).statistic ** 2 for each in (x, z)]
    assert found["r2_over_coupling"] == pytest.approx(r2[0] - r2[1])
    differences = []
    for counts in np.random.default_rng(3).multinomial(10, np.full(10, 0.1), 500):
        chosen = np.repeat(np.arange(10), counts)
        one, other = (stats.pearsonr(each[chosen], y[chosen]).statistic ** 2 for each in (x, z))
        differences.append(one - other)
    expected = tuple(np.percentile(differences, [2.5, 97.5]))
    ends = (found["r2_over_coupling_low"], found["r2_over_coupling_high"])
    assert ends == pytest.approx(expected, abs=1e-9)
