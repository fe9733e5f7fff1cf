import numpy as np
import pytest
import xarray as xr
from example_store import example, from_jacobians
from hypothesis import given, settings
from hypothesis import strategies as st

from blockcoupling.reduce.trajectory import (
    equidistance,
    equidistance_kernel,
    expodistance,
    expodistance_kernel,
    line_shape_score,
    line_shape_score_kernel,
)

EPSILON = np.finfo(float).eps
quick = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def gram(start, steps):
    """Gram matrix of x^0 and δ^1 … δ^L, given as vectors."""
    vectors = np.stack([start, *steps])
    return vectors @ vectors.T


@quick
@given(seed=seeds, blocks=st.integers(2, 8))
def test_the_definitions(seed, blocks):
    """Against the formulas on hidden states; Gram matrices lose a few digits of float64 at most."""
    states = np.random.default_rng(seed).normal(size=(3, blocks + 1, 5)).cumsum(axis=1)
    ds = from_jacobians("p", np.random.default_rng(0).normal(size=(1, blocks, 5, 5)), states, 2)
    for token in range(3):
        x = states[token]
        steps = np.diff(x, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        resultant = np.linalg.norm((steps / lengths[:, None]).sum(axis=0))
        alpha = np.log(np.linalg.norm(x[1:], axis=1) / np.linalg.norm(x[:-1], axis=1))
        assert line_shape_score(ds).values[0, token] == pytest.approx(blocks / resultant, rel=1e-9)
        # Relative to the spread, since the mean of α may lie near zero.
        assert 1 / expodistance(ds).values[0, token] == pytest.approx(
            alpha.mean() / alpha.std(), rel=1e-9, abs=1e-11
        )
        assert equidistance(ds).values[0, token] == pytest.approx(
            lengths.std() / lengths.mean(), rel=1e-9
        )


@quick
@given(seed=seeds, blocks=st.integers(1, 40))
def test_a_straight_line_has_score_1(seed, blocks):
    random = np.random.default_rng(seed)
    direction = random.normal(size=7)
    steps = random.uniform(0.01, 100, size=(blocks, 1)) * direction
    score = line_shape_score_kernel(gram(random.normal(size=7), steps))
    assert 1 <= score <= 1 + 8 * EPSILON


@quick
@given(seed=seeds, blocks=st.integers(1, 40))
def test_no_score_is_below_1(seed, blocks):
    random = np.random.default_rng(seed)
    bent = random.normal(size=7) + 1e-9 * random.normal(size=(blocks, 7))
    assert line_shape_score_kernel(gram(random.normal(size=7), bent)) >= 1


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 1e-2, 1.0, 3.0])
def test_two_steps_at_an_angle(angle):
    """LSS = 1 / cos(angle / 2); the deviation from 1 is right to the last digits of 1."""
    steps = [np.array([2.0, 0.0]), 5 * np.array([np.cos(angle), np.sin(angle)])]
    score = line_shape_score_kernel(gram(np.array([1.0, 1.0]), steps))
    assert score == pytest.approx(1 / np.cos(angle / 2), rel=4 * EPSILON)


def test_directions_that_cancel_have_no_finite_score():
    step = np.array([1.0, 2.0])
    assert line_shape_score_kernel(gram(step, [step, -step])) == np.inf


@quick
@given(
    seed=seeds,
    blocks=st.integers(2, 40),
    rate=st.floats(-0.05, 1).filter(lambda rate: abs(rate) > 1e-3),
)
def test_exponential_growth_has_expodistance_0(seed, blocks, rate):
    """x^l = e^(rate l) x^0, also slow growth and moderate decay.

    α is right to ε (‖x^0‖ / ‖x^l‖)² of 1, so that ED is to about ε e⁴ / 1e-3.
    """
    start = np.random.default_rng(seed).normal(size=7)
    steps = [np.exp(rate * depth) * np.expm1(rate) * start for depth in range(blocks)]
    assert abs(expodistance_kernel(gram(start, steps))) < 1e-10


@quick
@given(seed=seeds, blocks=st.integers(2, 20), base=st.floats(1.1, 3))
def test_growth_counts_and_direction_does_not(seed, blocks, base):
    """Norms that grow exactly, in directions that turn at random: ED 0 all the same."""
    directions = np.random.default_rng(seed).normal(size=(blocks + 1, 7))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    states = base ** np.arange(blocks + 1)[:, None] * directions
    assert abs(expodistance_kernel(gram(states[0], np.diff(states, axis=0)))) < 1e-10


@quick
@given(seed=seeds, blocks=st.integers(1, 40), length=st.floats(1e-3, 1e3))
def test_equal_steps_have_equidistance_0(seed, blocks, length):
    random = np.random.default_rng(seed)
    steps = random.normal(size=(blocks, 7))
    steps *= length / np.linalg.norm(steps, axis=1, keepdims=True)
    assert equidistance_kernel(gram(random.normal(size=7), steps)) < 1e-14


@quick
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_scale_and_rotation_of_the_states_change_nothing(seed, scale):
    random = np.random.default_rng(seed)
    start, steps = random.normal(size=7), random.normal(size=(5, 7))
    rotation, _ = np.linalg.qr(random.normal(size=(7, 7)))
    for kernel in (line_shape_score_kernel, equidistance_kernel):
        assert kernel(gram(scale * start @ rotation, scale * steps @ rotation)) == pytest.approx(
            kernel(gram(start, steps)), rel=1e-9
        )
    growing = start * np.exp(random.uniform(0.1, 1, size=(6, 1)).cumsum(axis=0))
    assert expodistance_kernel(
        gram(scale * growing[0] @ rotation, scale * np.diff(growing, axis=0) @ rotation)
    ) == pytest.approx(expodistance_kernel(gram(growing[0], np.diff(growing, axis=0))), rel=1e-9)


def test_a_zero_step_has_no_direction():
    start, step = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    stopped = gram(start, [step, 0 * step, step])
    assert np.isnan(line_shape_score_kernel(stopped))
    alpha = np.log([np.sqrt(5), 1, np.sqrt(13 / 5)])
    assert expodistance_kernel(stopped) == pytest.approx(alpha.std() / alpha.mean(), rel=1e-12)
    assert equidistance_kernel(stopped) == pytest.approx(np.sqrt(0.5), rel=1e-12)
    motionless = gram(start, [0 * step, 0 * step])
    assert np.isnan(expodistance_kernel(motionless))
    assert np.isnan(equidistance_kernel(motionless))


def test_a_zero_state_has_no_growth():
    start, step = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    assert np.isnan(expodistance_kernel(gram(start, [-start, step])))
    assert np.isnan(expodistance_kernel(gram(0 * start, [step, step])))


@pytest.mark.parametrize("function", [line_shape_score, expodistance, equidistance])
def test_shape_padding_and_laziness(function):
    ds = example(2, tokens=[2, 4])
    score = function(ds)
    assert score.dims == ("prompt", "token")
    assert score.name == function.__name__
    assert score.isnull().values.tolist() == [[False, False, True, True], [False] * 4]
    alone = function(ds.isel(prompt=[0], token=slice(2)))
    np.testing.assert_array_equal(score.values[:1, :2], alone.values)
    lazy = function(ds.chunk({"prompt": 1}))
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(), score)
