import numpy as np
import pytest
import xarray as xr
from example_store import example
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from blockcoupling.reduce.spectra import (
    effective_rank,
    effective_rank_kernel,
    inverse_depth_fit,
    inverse_depth_fit_kernel,
    participation_ratio,
    participation_ratio_kernel,
)

quick = settings(max_examples=50, deadline=None)
ranks = pytest.mark.parametrize("kernel", [participation_ratio_kernel, effective_rank_kernel])
spectra = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20).map(np.array)


@ranks
@quick
@given(number=st.integers(1, 50), size=st.floats(1e-3, 1e3))
def test_equal_values_all_count(kernel, number, size):
    assert kernel(np.full(number, size)) == pytest.approx(number, rel=1e-12)


@ranks
def test_zeros_do_not_count(kernel):
    assert kernel(np.array([3.0, 0, 0])) == pytest.approx(1, rel=1e-15)
    assert kernel(np.array([3.0, 3, 0])) == pytest.approx(2, rel=1e-15)


@ranks
@quick
@given(s=spectra, scale=st.floats(1e-3, 1e3))
def test_only_the_shape_of_a_spectrum_counts(kernel, s, scale):
    assert kernel(scale * s) == pytest.approx(kernel(s), rel=1e-12)
    assert 1 - 1e-12 <= kernel(s) <= len(s) * (1 + 1e-12)


@quick
@given(s=spectra)
def test_against_scipy(s):
    assert effective_rank_kernel(s) == pytest.approx(np.exp(stats.entropy(s)), rel=1e-12)
    assert participation_ratio_kernel(s) == pytest.approx(
        len(s) / (1 + stats.variation(s) ** 2), rel=1e-12
    )


@quick
@given(seed=st.integers(0, 2**32 - 1), blocks=st.integers(3, 30))
def test_fit_against_scipy(seed, blocks):
    s = np.random.default_rng(seed).uniform(0.1, 10, size=(4, blocks))
    depth = np.arange(1, blocks + 1)
    slope, intercept, r2 = inverse_depth_fit_kernel(s, depth)
    for row in range(4):
        fit = stats.linregress(depth, 1 / s[row])
        assert slope[row] == pytest.approx(fit.slope, rel=1e-9, abs=1e-12)
        assert intercept[row] == pytest.approx(fit.intercept, rel=1e-9, abs=1e-12)
        assert r2[row] == pytest.approx(fit.rvalue**2, abs=1e-12)


def test_a_line_is_found():
    depth = np.arange(1, 9)
    slope, intercept, r2 = inverse_depth_fit_kernel(1 / (0.5 + 0.25 * depth), depth)
    assert (slope, intercept, r2) == pytest.approx((0.25, 0.5, 1), rel=1e-12)


def test_where_the_fit_says_nothing():
    depth = np.arange(1, 5)
    constant = inverse_depth_fit_kernel(np.full(4, 3.0), depth)
    assert constant[:2] == pytest.approx((0, 1 / 3), abs=1e-15)
    assert np.isnan(constant[2])
    assert np.isnan(inverse_depth_fit_kernel(np.array([1.0, 0, 2, 3]), depth)).all()
    two = inverse_depth_fit_kernel(np.array([1.0, 0.5]), depth[:2])
    assert two[:2] == pytest.approx((1, 0))
    assert np.isnan(two[2])


def test_on_datasets():
    ds = example(2, blocks=4, tokens=[2, 3], all_tokens=True)
    for function, kernel in (
        (participation_ratio, participation_ratio_kernel),
        (effective_rank, effective_rank_kernel),
    ):
        result = function(ds["S"])
        assert result.dims == ("prompt", "pair", "block")
        assert result.name == function.__name__
        np.testing.assert_array_equal(result.values[1, 2, 3], kernel(ds["S"].values[1, 2, 3]))
        assert result.isnull().values[0, 2].all()
        lazy = function(ds["S"].chunk({"prompt": 1}))
        assert lazy.chunks is not None
        xr.testing.assert_identical(lazy.compute(), result)
    fit = inverse_depth_fit(ds["S"])
    assert fit["slope"].dims == ("prompt", "pair", "k")
    expected = stats.linregress(ds["block"], 1 / ds["S"].values[1, 0, :, 2].astype(float))
    assert fit["slope"].values[1, 0, 2] == pytest.approx(expected.slope, rel=1e-9)
    xr.testing.assert_identical(inverse_depth_fit(ds["S"].chunk({"prompt": 1})).compute(), fit)
