"""The bootstrap over models against resamples written out, and against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from blockcoupling.statistics.bootstrap import bootstrap_r2

# R. A. Fisher's iris, first setosa flowers: sepal length, sepal width, petal length.
SEPAL_LENGTH = [5.1, 4.9, 4.7, 4.6, 5.0, 5.4, 4.6, 5.0, 4.4, 4.9]
SEPAL_WIDTH = [3.5, 3.0, 3.2, 3.1, 3.6, 3.9, 3.4, 3.4, 2.9, 3.1]
PETAL_LENGTH = [1.4, 1.4, 1.3, 1.5, 1.4, 1.7, 1.4, 1.5, 1.4, 1.5]


def test_bootstrap_equals_r2_of_each_resample():
    x, y = np.array(SEPAL_LENGTH), np.array(SEPAL_WIDTH)
    models = np.array(list("aabbccddee"))
    found = bootstrap_r2(x, y, models, resamples=200, seed=3)
    # The same draws, written out: whole models are repeated, then SciPy fits each sample.
    draws = np.random.default_rng(3).multinomial(5, np.full(5, 0.2), 200)
    for r2, counts in zip(found, draws, strict=True):
        chosen = np.repeat(np.arange(10), np.repeat(counts, 2))
        assert r2 == pytest.approx(stats.linregress(x[chosen], y[chosen]).rvalue ** 2, abs=1e-9)


def test_bootstrap_interval_is_that_of_scipy():
    x, y = np.array(SEPAL_LENGTH), np.array(SEPAL_WIDTH)
    found = np.percentile(bootstrap_r2(x, y, np.arange(10), resamples=20_000, seed=0), [2.5, 97.5])
    expected = stats.bootstrap(
        (x, y),
        lambda a, b: stats.pearsonr(a, b).statistic ** 2,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=1,
    ).confidence_interval
    # Other draws: the quantiles of 2,000 resamples scatter by about 0.01 here.
    assert tuple(found) == pytest.approx(tuple(expected), abs=0.04)


def test_bootstrap_is_reproducible_and_marks_undefined_draws():
    same = [bootstrap_r2([0, 0, 1, 1], [1, 2, 3, 4], list("aabb"), seed=7) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    # Both draws are the same model with probability 1/2: x is then constant.
    assert np.isnan(same[0]).mean() == pytest.approx(0.5, abs=0.05)


def test_resampling_models_is_wider_than_resampling_points():
    random = np.random.default_rng(0)
    models = np.repeat(np.arange(8), 12)
    x = random.normal(size=8)[models] + 0.05 * random.normal(size=96)
    y = x + random.normal(size=8)[models] + 0.05 * random.normal(size=96)
    clustered = bootstrap_r2(x, y, models, seed=1)
    pointwise = bootstrap_r2(x, y, np.arange(96), seed=1)
    assert np.nanstd(clustered) > 2 * np.nanstd(pointwise)
