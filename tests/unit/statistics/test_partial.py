"""Partial correlation against the joint fit of statsmodels."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from blockcoupling.statistics.partial import partial_correlation

# R. A. Fisher's iris, first setosa flowers: sepal length, sepal width, petal length.
SEPAL_LENGTH = [5.1, 4.9, 4.7, 4.6, 5.0, 5.4, 4.6, 5.0, 4.4, 4.9]
SEPAL_WIDTH = [3.5, 3.0, 3.2, 3.1, 3.6, 3.9, 3.4, 3.4, 2.9, 3.1]
PETAL_LENGTH = [1.4, 1.4, 1.3, 1.5, 1.4, 1.7, 1.4, 1.5, 1.4, 1.5]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_partial_correlation_has_the_p_value_of_the_coefficient(seed, covariates):
    random = np.random.default_rng(seed)
    z = random.normal(size=(20, covariates))
    x = z.sum(axis=1) + random.normal(size=20)
    y = x - 2 * z[:, 0] + random.normal(size=20)
    found = partial_correlation(x, y, z)
    fit = sm.OLS(y, sm.add_constant(np.column_stack([x, z]))).fit()
    t = fit.tvalues[1]
    # Another algorithm for the same well-conditioned fit, in float64.
    assert found.p == pytest.approx(fit.pvalues[1], rel=1e-6)
    assert found.r == pytest.approx(t / np.sqrt(t**2 + fit.df_resid), rel=1e-6)
    assert found.freedom == fit.df_resid


def test_redundant_and_constant_covariates_change_nothing():
    once = partial_correlation(SEPAL_LENGTH, SEPAL_WIDTH, np.array(PETAL_LENGTH)[:, None])
    many = np.column_stack([PETAL_LENGTH, np.multiply(2, PETAL_LENGTH), np.ones(10)])
    again = partial_correlation(SEPAL_LENGTH, SEPAL_WIDTH, many)
    assert again.freedom == once.freedom == 7
    assert again.r == pytest.approx(once.r)
    assert again.p == pytest.approx(once.p)


def test_partial_correlation_without_covariates_is_pearson():
    found = partial_correlation(SEPAL_LENGTH, SEPAL_WIDTH, np.empty((10, 0)))
    expected = stats.pearsonr(SEPAL_LENGTH, SEPAL_WIDTH)
    assert (found.r, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_covariates_that_determine_the_predictor_leave_nothing():
    found = partial_correlation(SEPAL_LENGTH, SEPAL_WIDTH, np.multiply(3, SEPAL_LENGTH)[:, None])
    assert np.isnan(found.r)
    assert np.isnan(found.p)


@pytest.mark.parametrize("slope", [2.0, -0.5])
def test_what_is_left_may_lie_on_a_line(slope):
    found = partial_correlation(
        SEPAL_LENGTH, np.multiply(slope, SEPAL_LENGTH), np.array(PETAL_LENGTH)[:, None]
    )
    assert found.r == pytest.approx(np.sign(slope))
    assert found.p == pytest.approx(0, abs=1e-12)
    # Norms of 2 and 2 |slope|, without rounding.
    exact = partial_correlation(
        [-1, 1, -1, 1], np.multiply(slope, [-1, 1, -1, 1]), np.empty((4, 0))
    )
    assert (exact.r, exact.p) == (np.sign(slope), 0)
