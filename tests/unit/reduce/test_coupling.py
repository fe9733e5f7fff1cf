import numpy as np
import pytest
import xarray as xr
from example_store import example, from_jacobians
from hypothesis import given, settings
from hypothesis import strategies as st

from blockcoupling.config.variants import OF_BLOCKS, VARIANTS
from blockcoupling.errors import UserError
from blockcoupling.reduce.coupling import (
    coupling,
    mean_between_blocks,
    mean_by_distance,
    miscoupling,
    miscouplings,
)

# A and S are stored in float32 (6e-8 relative); m is a ratio of norms of up to 8 × 8 of them.
TOLERANCE = 2e-6

seeds = st.integers(0, 2**32 - 1)
variants = pytest.mark.parametrize("variant", OF_BLOCKS)
# Swapping U and V does not undo J, so m(J, J) is not 0 there.
proper = pytest.mark.parametrize(
    "variant", [name for name in OF_BLOCKS if VARIANTS[name].product == "A"]
)
quick = settings(max_examples=25, deadline=None)


def random_jacobians(seed, blocks=4, embed=6):
    """Partly coupled Jacobians: (1, block, embed, embed)."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(embed, embed))
    return common + random.normal(size=(1, blocks, embed, embed))


def dataset(jacobians, k=6):
    states = np.random.default_rng(0).normal(size=(1, jacobians.shape[1] + 1, jacobians.shape[-1]))
    return from_jacobians("p", jacobians, states, k, swapped=True)


def matrix(jacobians, k, variant):
    """m of a single prompt and pair: (block, block_other)."""
    return miscoupling(dataset(jacobians), k, variant).values[0, 0]


def reference(jacobians, k, variant):
    """Mis-coupling from the definition, pair by pair in float64, from J itself."""
    blocks = jacobians.shape[1]
    m = np.empty((blocks, blocks))
    for i, j in np.ndindex(blocks, blocks):
        s = np.linalg.svd(jacobians[0, i], compute_uv=False)[:k]
        u, _, vt = np.linalg.svd(jacobians[0, j])
        u, v = u[:, :k], vt[:k].T
        a = v.T @ jacobians[0, i] @ u if variant == "swapped" else u.T @ jacobians[0, i] @ v
        match variant:
            case "frobenius":
                m[i, j] = np.linalg.norm(a - np.diag(s)) / np.linalg.norm(s)
            case "absolute" | "swapped":
                m[i, j] = np.linalg.norm(np.abs(a) - np.diag(s)) / np.linalg.norm(s)
            case "absolute_trace":
                m[i, j] = np.linalg.norm(np.abs(a) - np.diag(s)) / np.sum(s)
            case "offdiagonal":
                m[i, j] = np.linalg.norm(a - np.diag(np.diag(a))) / np.linalg.norm(s)
    return m


@variants
@quick
@given(seed=seeds, k=st.integers(1, 6))
def test_the_definition(variant, seed, k):
    jacobians = random_jacobians(seed)
    np.testing.assert_allclose(
        matrix(jacobians, k, variant), reference(jacobians, k, variant), atol=TOLERANCE
    )


@proper
@quick
@given(seed=seeds, k=st.integers(1, 6))
def test_a_block_is_coupled_to_itself(variant, seed, k):
    m = matrix(random_jacobians(seed), k, variant)
    np.testing.assert_allclose(np.diag(m), 0, atol=TOLERANCE)
    assert (m[~np.eye(4, dtype=bool)] > 0).all() or (k == 1 and variant == "offdiagonal")


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("frobenius", 2), ("absolute", 0), ("absolute_trace", 0), ("offdiagonal", 0)],
)
@quick
@given(seed=seeds, k=st.integers(1, 6))
def test_only_frobenius_tells_a_jacobian_from_its_negative(variant, expected, seed, k):
    j = random_jacobians(seed, blocks=1)
    m = matrix(np.concatenate([j, -j], axis=1), k, variant)
    np.testing.assert_allclose([m[0, 1], m[1, 0]], expected, atol=TOLERANCE)


@quick
@given(seed=seeds, k=st.integers(1, 6))
def test_swapped_is_absolute_where_left_and_right_vectors_are_the_same(seed, k):
    """Symmetric positive definite Jacobians."""
    j = random_jacobians(seed)
    j = j @ j.swapaxes(-1, -2)
    np.testing.assert_allclose(
        matrix(j, k, "swapped"), matrix(j, k, "absolute"), atol=10 * TOLERANCE
    )


@variants
@quick
@given(seed=seeds, k=st.integers(1, 6))
def test_a_rotation_of_the_embedding_changes_nothing(variant, seed, k):
    j = random_jacobians(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(6, 6)))
    np.testing.assert_allclose(
        matrix(rotation @ j @ rotation.T, k, variant), matrix(j, k, variant), atol=TOLERANCE
    )


@variants
@quick
@given(seed=seeds, k=st.integers(1, 6), scale=st.floats(1e-3, 1e3))
def test_the_scale_of_a_jacobian_changes_nothing(variant, seed, k, scale):
    j = random_jacobians(seed)
    scaled = j.copy()
    scaled[:, 1] *= scale
    np.testing.assert_allclose(
        matrix(scaled, k, variant), matrix(j, k, variant), atol=2 * TOLERANCE
    )


@pytest.mark.slow
@variants
@quick
@given(seed=seeds)
def test_smaller_k_is_nested_in_the_largest(variant, seed):
    """Every K from the A of K_max = what an extraction with that K_max alone would have given."""
    j = random_jacobians(seed)
    asked = [6, 1, 4, 3]
    nested = miscouplings(dataset(j), asked, [variant])
    for k in asked:
        alone = miscoupling(dataset(j, k=k), k, variant)
        np.testing.assert_allclose(
            nested.sel(K=k, variant=variant).values, alone.values, atol=1e-12
        )


@quick
@given(seed=seeds, k=st.integers(1, 6))
def test_what_a_variant_overlooks_makes_it_smaller(seed, k):
    j = random_jacobians(seed)
    m = {variant: matrix(j, k, variant) for variant in OF_BLOCKS}
    assert (m["offdiagonal"] <= m["absolute"] + 1e-12).all()
    assert (m["absolute"] <= m["frobenius"] + 1e-12).all()
    assert (m["absolute_trace"] <= m["absolute"] + 1e-12).all()


def test_variants_and_k_come_in_the_order_asked_for():
    ds = example(2, swapped=True)
    m = miscouplings(ds, [4, 2], ["swapped", "absolute", "frobenius"])
    assert m.dims == ("prompt", "pair", "variant", "K", "block", "block_other")
    assert m["K"].values.tolist() == [4, 2]
    assert m["variant"].values.tolist() == ["swapped", "absolute", "frobenius"]
    for k in (4, 2):
        for variant in ("swapped", "absolute", "frobenius"):
            alone = miscoupling(ds, k, variant)
            assert alone.dims == ("prompt", "pair", "block", "block_other")
            # float64 sums of k² terms, in another order on some processors.
            xr.testing.assert_allclose(m.sel(K=k, variant=variant), alone, rtol=1e-14)


def test_coupling_is_minus_the_mean_over_different_blocks():
    ds = example(2, blocks=4, tokens=3, all_tokens=True)
    m = miscoupling(ds, 3).values
    c = coupling(ds, 3)
    assert c.dims == ("prompt", "pair")
    for prompt, pair in np.ndindex(2, 3):
        others = [m[prompt, pair, i, j] for i in range(4) for j in range(4) if i != j]
        assert c.values[prompt, pair] == pytest.approx(-np.mean(others), rel=1e-14)


@quick
@given(seed=seeds, blocks=st.integers(2, 6))
def test_distances_add_up_to_the_mean(seed, blocks):
    m = miscoupling(dataset(random_jacobians(seed, blocks)), 3)
    by_distance = mean_by_distance(m)
    assert by_distance["distance"].values.tolist() == list(range(1, blocks))
    adjacent = [m.values[0, 0, i, j] for i, j in np.ndindex(blocks, blocks) if abs(i - j) == 1]
    assert by_distance.sel(distance=1).item() == pytest.approx(np.mean(adjacent), rel=1e-14)
    pairs = 2 * (blocks - by_distance["distance"])
    assert (by_distance * pairs).sum().item() / pairs.sum().item() == pytest.approx(
        mean_between_blocks(m).item(), rel=1e-12
    )


def test_lazy_and_in_memory_agree():
    ds = example(3, swapped=True)
    lazy = ds.chunk({"prompt": 1})
    for variant in OF_BLOCKS:
        m = miscoupling(lazy, 3, variant)
        assert m.chunks is not None
        xr.testing.assert_identical(m.compute(), miscoupling(ds, 3, variant))
        c = coupling(lazy, 3, variant)
        assert c.chunks is not None
        xr.testing.assert_identical(c.compute(), coupling(ds, 3, variant))


def test_the_order_of_prompts_changes_nothing():
    ds = example(4)
    order = [2, 0, 3, 1]
    xr.testing.assert_identical(
        coupling(ds.isel(prompt=order), 3), coupling(ds, 3).isel(prompt=order)
    )


def test_padding_changes_nothing_and_stays_empty():
    together = example(2, tokens=[2, 4], all_tokens=True)
    c = coupling(together, 3)
    assert c.isnull().values.tolist() == [[False, False, True, True], [False] * 4]
    alone = together.isel(prompt=[0], pair=slice(2), token=slice(2))
    np.testing.assert_array_equal(c.values[:1, :2], coupling(alone, 3).values)


def test_one_prompt_or_pair_may_be_selected():
    ds = example(2)
    assert coupling(ds.isel(prompt=1, pair=0), 3).item() == coupling(ds, 3).values[1, 0]
    chosen = {"block": [0, 2], "block_other": [0, 2]}
    np.testing.assert_array_equal(miscoupling(ds.isel(chosen), 3), miscoupling(ds, 3).isel(chosen))


@pytest.mark.parametrize(
    ("change", "k", "variant", "message"),
    [
        (lambda ds: ds, 5, "frobenius", "K = 5, but the store holds 4 .* larger k"),
        (lambda ds: ds, 0, "frobenius", "K = 0.* from 1 to 4"),
        (lambda ds: ds, 3, "frobenious", "unknown variant 'frobenious': choose from frobenius,"),
        (lambda ds: ds, 3, "swapped", "extract again with them"),
        (lambda ds: ds.drop_vars("A"), 3, "frobenius", "no variable A"),
        (lambda ds: ds.isel(block=[0, 1]), 3, "frobenius", "the same blocks along"),
    ],
)
def test_what_cannot_be_had_is_said(change, k, variant, message):
    ds = change(example(1))
    for function in (miscoupling, coupling):
        with pytest.raises(UserError, match=message):
            function(ds, k, variant)


@variants
@quick
@given(seed=seeds, k=st.integers(1, 6), idle=st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_a_jacobian_of_zero_has_no_miscoupling_and_the_others_have_theirs(variant, seed, k, idle):
    jacobians = random_jacobians(seed)
    left = [i for i in range(4) if i not in idle]
    whole = dataset(jacobians)
    zero = whole.copy(deep=True)
    for name in ("S", "A", "A_swapped"):
        zero[name][{"block": list(idle)}] = 0
    m = miscoupling(zero, k, variant).values[0, 0]
    assert np.isnan(m[list(idle)]).all()
    assert np.isnan(m[:, list(idle)]).all()
    wanted = reference(jacobians, k, variant)[np.ix_(left, left)]
    np.testing.assert_allclose(m[np.ix_(left, left)], wanted, atol=TOLERANCE)
    off = wanted[~np.eye(len(left), dtype=bool)]
    found = coupling(zero, k, variant).item()
    if len(left) < 2:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(-off.mean(), abs=TOLERANCE)


def test_any_other_number_that_is_missing_stays_missing():
    ds = dataset(random_jacobians(0))
    ds["A"][{"block": 1, "block_other": 2}] = np.nan
    assert np.isnan(coupling(ds, 3).item())
    ds["A"][{"block": 1}] = np.nan  # the whole of a block
    assert np.isnan(coupling(ds, 3).item())
