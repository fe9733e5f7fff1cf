"""Chance by formula against the definition drawn many times, from Jacobians and whole products."""

import numpy as np
import pytest
import xarray as xr
from example_store import example, from_jacobians
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

import blockcoupling as bc
from blockcoupling.config.variants import OF_BLOCKS
from blockcoupling.errors import UserError
from blockcoupling.reduce.chance import (
    chance_by_draws,
    drawn_miscoupling,
    mean_absolute_entry,
)

D = 24
DRAWS = 400

variants = pytest.mark.parametrize("variant", OF_BLOCKS)


def jacobians() -> np.ndarray:
    """Three blocks with flat, falling and steep singular values: (1, block, d, d)."""
    random = np.random.default_rng(0)
    spectra = [np.ones(D), 0.9 ** np.arange(D), 1 / (1.0 + np.arange(D)) ** 2]
    turns = ortho_group.rvs(D, size=6, random_state=random)
    return np.stack([turns[n] * s @ turns[n + 3] for n, s in enumerate(spectra)])[None]


def dataset(kept: int, full: bool = False) -> xr.Dataset:
    j = jacobians()
    states = np.random.default_rng(0).normal(size=(1, 4, D))
    ds = from_jacobians("p", j, states, kept, swapped=True)
    if full:
        every = np.linalg.svd(j, compute_uv=False)[None].astype(np.float32)
        ds = ds.assign(S_full=(("prompt", "pair", "block", "k_full"), every))
        ds = ds.assign_coords(k_full=np.arange(1, D + 1))
    return ds


def by_definition(j: np.ndarray, k: int, variant: str) -> np.ndarray:
    """m of a Jacobian with random frames from SciPy's Haar orthogonal matrices, drawn many times.

    Written apart from the package: whole matrices, one draw after the other.
    """
    turns = ortho_group.rvs(D, size=2 * DRAWS, random_state=np.random.default_rng(1))
    s = np.linalg.svd(j, compute_uv=False)[:k]
    m = []
    for u, v in zip(turns[:DRAWS, :, :k], turns[DRAWS:, :, :k], strict=True):
        a = u.T @ j @ v
        if variant in ("absolute", "absolute_trace", "swapped"):
            a = abs(a)
        target = np.diag(np.diag(a)) if variant == "offdiagonal" else np.diag(s)
        scale = s.sum() if variant == "absolute_trace" else np.linalg.norm(s)
        m.append(np.linalg.norm(a - target) / scale)
    return np.array(m)


@variants
@pytest.mark.parametrize("k", [1, 5, D])
@pytest.mark.parametrize("full", [False, True])
def test_the_formula_is_what_drawing_gives(variant: str, k: int, full: bool) -> None:
    # Half of the values are kept: the rest are even to 3 % of ‖J‖ in all three spectra.
    ds = dataset(max(k, D // 2), full)
    found = bc.chance(ds, k, variant)
    assert found.dims == ("prompt", "pair", "block")
    for block, j in enumerate(jacobians()[0]):
        squares = by_definition(j, k, variant) ** 2
        # Five standard errors of a mean of that many draws; in float32, S is good to 1e-7.
        error = 5 * squares.std() / DRAWS**0.5 + 1e-6
        assert found.values[0, 0, block] ** 2 == pytest.approx(squares.mean(), abs=error)


@variants
def test_drawing_from_singular_values_is_drawing_frames(variant: str) -> None:
    ds, k = dataset(12), 5
    drawn = chance_by_draws(ds, k, variant, draws=DRAWS)
    for block, j in enumerate(jacobians()[0]):
        m = by_definition(j, k, variant)
        own = drawn.isel(prompt=0, pair=0, block=block)
        error = 7 * m.std() / DRAWS**0.5 + 1e-6  # of a difference of two means
        assert float(own["mean"]) == pytest.approx(m.mean(), abs=error)
        assert float(own["rms"]) == pytest.approx(np.sqrt((m**2).mean()), abs=error)
        for name, q in (("low", 0.025), ("high", 0.975)):
            # A quantile near 2.5 % of 400 draws is good to some 0.3 standard deviations.
            wanted = np.quantile(m, q)
            assert float(own[name]) == pytest.approx(wanted, abs=1.2 * m.std() + 1e-6)
        assert own["low"] <= own["mean"] <= own["high"]


def test_frobenius_is_the_formula_that_is_written_down() -> None:
    ds, k = dataset(12), 7
    norm = np.linalg.norm(jacobians()[0], axis=(-2, -1))
    s = np.linalg.svd(jacobians()[0], compute_uv=False)[:, :k]
    wanted = np.sqrt(1 + k**2 * norm**2 / (D**2 * np.square(s).sum(-1)))
    np.testing.assert_allclose(bc.chance(ds, k).values[0, 0], wanted, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.floats(0.01, 1), min_size=2, max_size=8),
    scale=st.floats(1e-3, 1e3),
)
def test_mean_absolute_entry_is_between_its_bounds(values: list[float], scale: float) -> None:
    """It scales with J, and lies below the root mean square, ‖J‖ / d (Jensen)."""
    s = np.array(values)
    d, found = len(s), mean_absolute_entry(s)
    assert mean_absolute_entry(scale * s) == pytest.approx(scale * found, rel=1e-8)
    assert 0 < found < np.linalg.norm(s) / d


def test_mean_absolute_entry_where_it_is_known() -> None:
    # J = 1 in one dimension; a rotation in two, where uᵀ J v = cos of a uniform angle.
    assert mean_absolute_entry(np.array([3.0])) == pytest.approx(3, rel=1e-9)
    assert mean_absolute_entry(np.ones(2)) == pytest.approx(2 / np.pi, rel=1e-9)
    # Rank one: E|u_1| E|v_1|, each Γ(3/2) / (√π Γ(2)) = 1/2 in three dimensions.
    assert mean_absolute_entry(np.array([1.0, 0, 0])) == pytest.approx(1 / 4, rel=1e-9)


@variants
def test_excess_is_one_for_coupled_blocks_and_none_by_chance(variant: str) -> None:
    if variant == "swapped":
        pytest.skip("0 for symmetric Jacobians only")
    same = np.repeat(jacobians()[:, 1:2], 3, axis=1)
    ds = from_jacobians("p", same, np.random.default_rng(0).normal(size=(1, 4, D)), 6)
    np.testing.assert_allclose(bc.excess(ds, 6, variant).values, 1, atol=1e-5)
    wide = 200
    random = np.random.default_rng(0).normal(size=(1, 3, wide, wide))
    ds = from_jacobians("p", random, np.random.default_rng(0).normal(size=(1, 4, wide)), 10)
    apart = bc.excess(ds, 10, variant)
    assert apart.dims == ("prompt", "pair", "block", "block_other")
    off = apart.values[0, 0][~np.eye(3, dtype=bool)]
    # The spread of m over draws, relative to itself.
    assert abs(off).max() < (0.2 if variant == "offdiagonal" else 0.03)


def test_lazy_stays_lazy() -> None:
    ds = example(2, tokens=[2, 4], all_tokens=True).chunk({"prompt": 1, "pair": 1})
    found = bc.excess(ds, 3, "absolute")
    assert found.chunks is not None
    xr.testing.assert_allclose(found.compute(), bc.excess(ds.compute(), 3, "absolute"))
    assert np.isnan(found.values[0, 3]).all()  # padding
    assert np.isfinite(found.values[1]).all()


def test_a_jacobian_of_zero_has_no_chance() -> None:
    ds = example(1)
    for name in ("S", "A", "jacobian_norm"):
        ds[name][{"block": 1}] = 0
    assert np.isnan(bc.chance(ds, 3).values[0, 0]).tolist() == [False, True, False]
    assert np.isnan(chance_by_draws(ds, 3)["mean"].values[0, 0]).tolist() == [False, True, False]


@pytest.mark.parametrize("function", [bc.chance, bc.excess, chance_by_draws])
def test_what_cannot_be_had_is_refused(function) -> None:
    ds = example(1)
    with pytest.raises(UserError, match="K = 9, but the store holds 4"):
        function(ds, 9)
    with pytest.raises(UserError, match="unknown variant"):
        function(ds, 3, "frobenious")
    del ds.attrs["dimension"]
    with pytest.raises(UserError, match="does not say how wide the model is"):
        function(ds, 3)
    with pytest.raises(UserError, match="at least 2"):
        chance_by_draws(example(1), 3, draws=1)


def test_the_width_is_that_of_the_vectors_where_there_are_any() -> None:
    known, unknown = example(1, vectors=True), example(1, vectors=True).drop_attrs()
    xr.testing.assert_equal(bc.chance(unknown, 3), bc.chance(known, 3))


def test_draws_are_the_same_for_the_same_seed() -> None:
    values = np.array([3.0, 2, 1])
    one, again, other = (drawn_miscoupling(values, 2, "absolute", 5, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
