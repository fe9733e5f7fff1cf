"""One predictor against one score: against SciPy and statsmodels, and what is said without."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from blockcoupling.statistics.regression import is_constant, relate

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
    assert (found["n"], found["models"], found["note"]) == (10, 10, "")


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
    assert found["note"] == "1 of 11 points lack a value"


def test_points_of_one_model_are_called_dependent():
    note = relate(SEPAL_LENGTH, SEPAL_WIDTH, ["a"] * 5 + ["b"] * 5)["note"]
    assert "10 points of 2 models are not independent" in note
    assert "interval from 2 models only" in note
