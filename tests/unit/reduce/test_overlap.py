"""Overlaps against known truths, the laws that they keep, and SciPy's principal angles."""

import numpy as np
import pytest
import xarray as xr
from example_store import example, from_jacobians
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.stats import ortho_group

import blockcoupling as bc
from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.errors import UserError
from blockcoupling.reduce.coupling import mean_between_blocks
from blockcoupling.reduce.overlap import above_chance, overlap_kernel, overlaps

D = 12
# Overlaps are stored in float32 (6e-8 relative); O is a mean of at most 12 sums of their squares.
TOLERANCE = 1e-6

kinds = pytest.mark.parametrize("kind", OVERLAPS)
quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def frames(seed: int, blocks: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """U and V of some blocks, whole orthogonal matrices: (block, D, D) each."""
    turns = ortho_group.rvs(D, size=2 * blocks, random_state=np.random.default_rng(seed))
    return turns[:blocks], turns[blocks:]


def of_frames(u: np.ndarray, v: np.ndarray, k: int) -> xr.Dataset:
    """The dataset of Jacobians with these singular vectors."""
    jacobians = u * np.linspace(3, 1, u.shape[-1]) @ v.swapaxes(-1, -2)
    states = np.random.default_rng(0).normal(size=(2, len(u) + 1, u.shape[-2]))
    return from_jacobians("p", jacobians[None], states, k, overlaps=True)


def matrix(u: np.ndarray, v: np.ndarray, k: int, kind: str) -> np.ndarray:
    return bc.overlap(of_frames(u, v, k), k, kind).values[0, 0]


@kinds
@quick
@given(seed=seeds, k=st.integers(1, D))
def test_it_is_the_mean_squared_cosine_of_the_principal_angles(kind, seed, k):
    u, v = frames(seed)
    found = matrix(u, v, k, kind)
    left = {"output_overlap": u, "input_overlap": v, "composition": v}[kind]
    right = {"output_overlap": u, "input_overlap": v, "composition": u}[kind]
    for i, j in np.ndindex(3, 3):
        if kind == "composition" and j >= i:
            assert np.isnan(found[i, j])
        else:
            angles = subspace_angles(left[i][:, :k], right[j][:, :k])
            assert found[i, j] == pytest.approx(np.mean(np.cos(angles) ** 2), abs=TOLERANCE)


def test_identical_blocks_overlap_wholly_and_compose_as_they_read():
    u, v = (np.repeat(each[:1], 3, axis=0) for each in frames(0))
    for kind in ("output_overlap", "input_overlap"):
        np.testing.assert_allclose(matrix(u, v, 4, kind), 1, atol=TOLERANCE)
    later = np.tril(np.ones((3, 3), bool), -1)
    # What each of them writes, the next reads: V = U.
    np.testing.assert_allclose(matrix(u, u, 4, "composition")[later], 1, atol=TOLERANCE)


def test_orthogonal_subspaces_do_not_overlap():
    basis = frames(1)[0][0]
    u = np.stack([np.roll(basis, -4 * block, axis=1) for block in range(3)])
    v = np.roll(u, 2, axis=2)
    apart = ~np.eye(3, dtype=bool)
    for kind in ("output_overlap", "input_overlap"):
        np.testing.assert_allclose(matrix(u, v, 4, kind)[apart], 0, atol=TOLERANCE)
    # Half of what block 2 reads is what block 1 wrote, and block 3 from block 2; none of the other.
    found = matrix(u, v, 4, "composition")
    np.testing.assert_allclose([found[1, 0], found[2, 1], found[2, 0]], [0.5, 0.5, 0], atol=1e-6)


@kinds
def test_random_subspaces_overlap_by_k_over_d(kind):
    d, k, blocks = 60, 10, 12
    turns = ortho_group.rvs(d, size=2 * blocks, random_state=np.random.default_rng(2))
    ds = of_frames(turns[:blocks], turns[blocks:], k)
    found = bc.overlap(ds, k, kind).values[0, 0]
    apart = np.tril(np.ones((blocks, blocks), bool), -1)  # each two blocks once
    values = found[apart]
    # Five standard errors of the mean of 66 pairs.
    error = 5 * values.std() / len(values) ** 0.5
    assert values.mean() == pytest.approx(k / d, abs=error)
    assert error < 0.1 * k / d
    excess = above_chance(xr.DataArray(values), xr.DataArray(k / d))
    assert float(excess.mean()) == pytest.approx(0, abs=error / (1 - k / d))


@kinds
@quick
@given(seed=seeds, k=st.integers(1, D), data=st.data())
def test_signs_and_order_change_nothing(kind, seed, k, data):
    u, v = (each[:, :, :k] for each in frames(seed))
    order = data.draw(st.permutations(range(k)))
    signs = np.array(data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=k, max_size=k)))
    turned_u, turned_v = u.copy(), v.copy()
    turned_u[1], turned_v[1] = u[1][:, order] * signs, v[1][:, order] * signs
    assert_same(kind, (u, v), (turned_u, turned_v))


@kinds
@quick
@given(seed=seeds, k=st.integers(2, D))
def test_a_rotation_within_the_subspace_changes_nothing(kind, seed, k):
    u, v = (each[:, :, :k] for each in frames(seed))
    turns = ortho_group.rvs(k, size=6, random_state=np.random.default_rng(seed + 1))
    assert_same(kind, (u, v), (u @ turns[:3], v @ turns[3:]))


@kinds
@quick
@given(seed=seeds, k=st.integers(1, D))
def test_a_rotation_of_the_embedding_changes_nothing(kind, seed, k):
    u, v = (each[:, :, :k] for each in frames(seed))
    turn = ortho_group.rvs(D, random_state=np.random.default_rng(seed + 1))
    assert_same(kind, (u, v), (turn @ u, turn @ v))


def assert_same(kind: str, *of: tuple[np.ndarray, np.ndarray]) -> None:
    """The kernel's numbers of both frames are the same to float64's rounding, and from 0 to 1."""
    one, other = (
        overlap_kernel(products(kind, u, v), np.zeros(len(u)), [u.shape[-1]])[0] for u, v in of
    )
    np.testing.assert_allclose(one, other, atol=1e-12)
    assert one.min() >= 0
    assert one.max() <= 1 + 1e-12


def products(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    by_name = {"U": u, "V": v}
    left, right = (by_name[each] for each in (OVERLAPS[kind].left, OVERLAPS[kind].right))
    return np.einsum("iak,jal->ijkl", left, right)


@kinds
@quick
@given(seed=seeds)
def test_smaller_k_is_nested_in_the_largest(kind, seed):
    """Every K from the corner of K_max = what an extraction with that K_max alone gives."""
    u, v = frames(seed)
    nested = overlaps(of_frames(u, v, 6), [6, 1, 4])[kind]
    assert nested.dims == ("prompt", "pair", "K", "block", "block_other")
    for k in (6, 1, 4):
        alone = overlaps(of_frames(u, v, k), [k])[kind].sel(K=k)
        np.testing.assert_allclose(nested.sel(K=k), alone, atol=TOLERANCE)


def test_subspaces_of_all_dimensions_have_no_excess():
    whole = xr.DataArray([1.0])
    assert np.isnan(above_chance(whole, whole)).all()
    assert above_chance(whole, xr.DataArray([0.25])).item() == 1
    assert above_chance(xr.DataArray([0.25]), xr.DataArray([0.25])).item() == 0


@kinds
def test_a_block_that_does_nothing_has_no_overlap(kind):
    ds = example(1, blocks=4, overlaps=True)
    for name in ("S", "A", "jacobian_norm"):
        ds[name][{"block": 1}] = 0
    found = bc.overlap(ds, 3, kind).values[0, 0]
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    rest = bc.overlap(ds.isel(block=[0, 2, 3], block_other=[0, 2, 3]), 3, kind).values[0, 0]
    np.testing.assert_array_equal(found[np.ix_([0, 2, 3], [0, 2, 3])], rest)
    chosen = np.tril(rest, -1)[np.tril_indices(3, -1)] if OVERLAPS[kind].earlier else None
    if chosen is None:
        chosen = rest[~np.eye(3, dtype=bool)]
    mean = mean_between_blocks(overlaps(ds, [3])[kind], earlier=OVERLAPS[kind].earlier)
    assert mean.item() == pytest.approx(chosen.mean(), rel=1e-12)


def test_lazy_stays_lazy():
    ds = example(2, tokens=[2, 4], all_tokens=True, overlaps=True)
    found = bc.overlap(ds.chunk({"prompt": 1, "pair": 1}), 3)
    assert found.chunks is not None
    xr.testing.assert_allclose(found.compute(), bc.overlap(ds, 3))
    assert np.isnan(found.values[0, 3]).all()  # padding
    assert np.isfinite(found.values[1]).all()


def test_what_cannot_be_had_is_refused():
    with pytest.raises(UserError, match="K = 9, but the store holds 4"):
        bc.overlap(example(1, overlaps=True), 9)
    with pytest.raises(UserError, match="unknown overlap 'output': choose from output_overlap, "):
        bc.overlap(example(1, overlaps=True), 3, "output")
    with pytest.raises(UserError, match=r"does not hold composition: .* overlaps=True"):
        bc.overlap(example(1), 3, "composition")
