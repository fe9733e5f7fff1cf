"""What is kept of trajectories, against its definition and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from blockcoupling.measurement.states import (
    gram,
    neighbours_cka,
    principal_components,
    rankme,
)


def trajectories(tokens: int, states: int = 5, embed: int = 7, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(tokens, states, embed)).cumsum(axis=1)


def test_gram_is_its_definition() -> None:
    states = trajectories(3)
    found = gram(states)
    for token, x in enumerate(states):
        steps = [x[0], *(x[i] - x[i - 1] for i in range(1, len(x)))]
        for i, one in enumerate(steps):
            for j, other in enumerate(steps):
                # Seven products a sum: a few roundings of 1e-16.
                assert found[token, i, j] == pytest.approx(np.dot(one, other), abs=1e-13)


@given(st.integers(1, 6), st.integers(0, 99))
def test_law_gram_holds_every_states_norm(tokens: int, seed: int) -> None:
    """‖x^l‖² is the sum over the steps up to l: trajectories can be tested with it alone."""
    states = trajectories(tokens, seed=seed)
    found = gram(states)
    norms = [found[:, : i + 1, : i + 1].sum(axis=(1, 2)) for i in range(states.shape[1])]
    np.testing.assert_allclose(
        np.stack(norms, axis=1), (states**2).sum(axis=-1), rtol=1e-10, atol=1e-12
    )


@given(st.integers(1, 6), st.integers(0, 99))
def test_law_gram_does_not_see_a_change_of_basis(tokens: int, seed: int) -> None:
    states = trajectories(tokens, seed=seed)
    turn, _ = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(7, 7)))
    np.testing.assert_allclose(gram(states @ turn), gram(states), rtol=0, atol=1e-11)


@pytest.mark.parametrize("tokens", [3, 4, 20])
def test_components_are_scikit_learns(tokens: int) -> None:
    states = trajectories(tokens)
    projected, explained = principal_components(states)
    pca = PCA(2, svd_solver="full").fit(states[:, -1])
    wanted = np.stack([pca.transform(states[:, i]) for i in range(states.shape[1])], axis=1)
    # Stored in float32 (6e-8); of either sign.
    scale = np.abs(wanted).max()
    for component in range(2):
        found, other = projected[..., component], wanted[..., component]
        sign = np.sign((found * other).sum())
        np.testing.assert_allclose(found, sign * other, rtol=0, atol=2e-7 * scale)
    np.testing.assert_allclose(explained, pca.explained_variance_ratio_, rtol=2e-7)
    assert projected.dtype == explained.dtype == np.float32


def test_signs_are_fixed() -> None:
    """Trajectories mirrored in the origin have the same axes, so mirrored projections."""
    states = trajectories(6)
    once, _ = principal_components(states)
    mirrored, _ = principal_components(-states)
    np.testing.assert_allclose(mirrored, -once, rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize(("tokens", "components"), [(1, 0), (2, 1)])
def test_fewer_tokens_have_fewer_components(tokens: int, components: int) -> None:
    projected, explained = principal_components(trajectories(tokens))
    assert projected.shape == (tokens, 5, 2)
    assert not projected[..., components:].any()
    assert not explained[components:].any()
    assert explained[:components].sum() == pytest.approx(components, abs=1e-6)  # all of it


def test_tokens_that_end_in_one_place_have_no_components() -> None:
    states = trajectories(4)
    states[:, -1] = states[0, -1]
    projected, explained = principal_components(states)
    assert not projected.any()
    assert not explained.any()


@pytest.mark.parametrize("tokens", [4, 5, 7, 30])  # fewer and more than the width of 7
def test_cka_is_its_definition_by_unbiased_hsic(tokens: int) -> None:
    """HSIC of linear kernels without their diagonal, as Song et al. (2012, eq. 5) write it."""
    states = trajectories(tokens) + 3  # not centred
    one, n = np.ones(tokens), tokens

    def hsic(x: np.ndarray, y: np.ndarray) -> float:
        k, l_ = (each @ each.T * (1 - np.eye(n)) for each in (x, y))
        means = (one @ k @ one) * (one @ l_ @ one) / ((n - 1) * (n - 2))
        return (np.trace(k @ l_) + means - 2 / (n - 2) * (one @ k @ l_ @ one)) / (n * (n - 3))

    found = neighbours_cka(states)
    assert found.shape == (4,)
    for block in range(4):
        x, y = states[:, block], states[:, block + 1]
        wanted = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
        # Sums of at most some 900 products of about 10, rounded at 1e-16, which nearly cancel.
        assert found[block] == pytest.approx(wanted, rel=1e-9, abs=1e-11)


def test_cka_of_unrelated_states_is_zero_on_average() -> None:
    random = np.random.default_rng(0)
    found = [neighbours_cka(random.normal(size=(8, 2, 64)))[0] for _ in range(400)]
    # The biased estimator gives 0.9 for 8 tokens of width 64.
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / 20)


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_cka_needs_four_tokens(tokens: int) -> None:
    assert np.isnan(neighbours_cka(trajectories(tokens))).all()


@given(st.integers(4, 20), st.integers(0, 99))
def test_law_cka_does_not_see_rotations_lengths_and_shifts(tokens: int, seed: int) -> None:
    states = trajectories(tokens, states=2, seed=seed)
    turn, _ = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(7, 7)))
    turned = np.stack([states[:, 0], 5 * states[:, 0] @ turn + 2], axis=1)
    assert neighbours_cka(turned)[0] == pytest.approx(1, abs=1e-11)
    assert -1 <= neighbours_cka(states)[0] <= 1


def test_cka_of_tokens_that_are_all_the_same_is_undefined() -> None:
    assert np.isnan(neighbours_cka(trajectories(1))).all()
    states = trajectories(6)
    states[:, 0] = 0.1 * np.arange(7)  # six times one token, without positions
    assert np.isnan(neighbours_cka(states)[0])
    assert np.isfinite(neighbours_cka(states)[1:]).all()


def test_rankme_of_known_spectra() -> None:
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(random.normal(size=(20, 7)))
    right, _ = np.linalg.qr(random.normal(size=(7, 7)))
    values = np.array([4, 2, 1, 1, 0, 0, 0.0])  # of sum 8: p = 1/2, 1/4, 1/8, 1/8
    # Entropy 1/2 ln 2 + 1/4 ln 4 + 2/8 ln 8 = 7/4 ln 2; rounding gives zeros of 1e-16.
    assert rankme((left * values) @ right) == pytest.approx(2**1.75, rel=1e-12)
    assert rankme(left @ right) == pytest.approx(7, rel=1e-12)
    assert rankme(trajectories(1)[:, -1]) == pytest.approx(1, rel=1e-12)
    assert np.isnan(rankme(np.zeros((3, 7))))
