"""The iteration's singular triples against LAPACK's in float64, on spectra easy and nasty."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian.operator import DenseOperator
from blockcoupling.jacobian.svd import (
    NotConverged,
    SingularTriples,
    fix_signs,
    full_svd,
    relative_residual,
    truncated_svd,
)

D = 160
BLOCK = 8
_i = torch.arange(D, dtype=torch.float64)

SPECTRA = {
    "decaying": 0.8**_i,
    "slowly decaying": (1 + _i) ** -0.5,
    "linear": 1 - _i / D,
    "flat": torch.ones(D, dtype=torch.float64),
    "rank 5": (_i < 5).double() * (1 - 0.1 * _i),
    "rank 5, all the same": (_i < 5).double(),
    "nothing but one": (_i < 1).double(),
    "30 times the largest, then fast": torch.where(_i < 30, 1.0, 0.5 * 0.7 ** (_i - 30)),
    "30 times the largest, then slow": torch.where(_i < 30, 1.0, 0.9 * (_i - 28) ** -0.3),
    "30 times the second": torch.where(_i < 1, 2.0, torch.where(_i < 31, 1.0, 0.5)),
    "as many times as the block": torch.where(_i < BLOCK, 1.0, 0.5 * 0.7 ** (_i - BLOCK)),
    "tens": 0.5 ** (_i // 10),
    "half of it far below rounding": torch.where(_i < D // 2, 1 - _i / D, 1e-30),
}

# What is asked of the iteration, and what rounding alone may add to a sum over d, by data type.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


def orthogonal(d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def matrix(spectrum: Tensor, seed: int = 0) -> Tensor:
    d = len(spectrum)
    return (orthogonal(d, 2 * seed) * spectrum) @ orthogonal(d, 2 * seed + 1).T


def gaussian(d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d, d, generator=generator, dtype=torch.float64)


def check(found: SingularTriples, jacobians: Tensor, tolerance: float) -> None:
    """Everything that makes triples the top ones of their matrices (prompt, d, d)."""
    rounding = ROUNDING[found.S.dtype]
    for p, jacobian in enumerate(jacobians.double()):
        u, s, v = (each[p].double() for each in (found.U, found.S, found.V))
        wanted = torch.linalg.svdvals(jacobian)[: len(s)]
        # Weyl: a residual of tolerance s_1 leaves a singular value no further off than that.
        assert (s - wanted).abs().max() <= (tolerance + rounding) * wanted[0]
        for vectors in (u, v):
            unit = torch.eye(len(s), dtype=torch.float64)
            assert (vectors.T @ vectors - unit).abs().max() < rounding
        right = float((jacobian @ v - u * s).norm(dim=0).max() / s[0])
        left = float((jacobian.T @ u - v * s).norm(dim=0).max() / s[0])
        assert right <= tolerance + rounding
        assert left <= tolerance + rounding
        assert abs(right - float(found.residual[p])) <= rounding
        assert (u.gather(0, u.abs().argmax(dim=0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("k", [1, 10, 40])
@pytest.mark.parametrize("name", SPECTRA)
def test_triples_are_lapacks(name: str, k: int, dtype: torch.dtype) -> None:
    jacobian = matrix(SPECTRA[name]).to(dtype)[None]
    found = truncated_svd(DenseOperator(jacobian), k, TOLERANCE[dtype], block=BLOCK)
    check(found, jacobian, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SPECTRA)
def test_restarts_change_nothing(name: str, dtype: torch.dtype) -> None:
    jacobian = matrix(SPECTRA[name]).to(dtype)[None]
    found = truncated_svd(DenseOperator(jacobian), 6, TOLERANCE[dtype], block=4, max_basis=18)
    check(found, jacobian, TOLERANCE[dtype])


def test_a_small_basis_is_restarted() -> None:
    jacobian = matrix(SPECTRA["slowly decaying"])[None]
    small = truncated_svd(DenseOperator(jacobian), 6, 1e-9, block=4, max_basis=18)
    large = truncated_svd(DenseOperator(jacobian), 6, 1e-9, block=4)
    # Both bases grow by a vector a product: more than twice 18 have passed through the small one.
    assert small.products > 2 * 36
    assert small.products > large.products
    torch.testing.assert_close(small.S, large.S, rtol=1e-9, atol=0)  # the tolerance asked for


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_zero_rows_and_columns(dtype: torch.dtype) -> None:
    jacobian = torch.zeros(1, D, D, dtype=torch.float64)
    jacobian[0, :20, 40:60] = gaussian(20)
    jacobian = jacobian.to(dtype)
    found = truncated_svd(DenseOperator(jacobian), 30, TOLERANCE[dtype], block=BLOCK)
    check(found, jacobian, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_all_of_them(dtype: torch.dtype) -> None:
    jacobian = gaussian(40).to(dtype)[None]
    check(truncated_svd(DenseOperator(jacobian), 40, 1e-4), jacobian, ROUNDING[dtype])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_tiny_matrices(d: int) -> None:
    jacobian = gaussian(d)[None]
    check(truncated_svd(DenseOperator(jacobian), d), jacobian, ROUNDING[torch.float64])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_zero_matrix_has_orthonormal_vectors_and_no_singular_values(dtype: torch.dtype) -> None:
    found = truncated_svd(DenseOperator(torch.zeros(1, 30, 30, dtype=dtype)), 5, block=4)
    assert not found.S.any()
    assert not found.residual.any()
    unit = torch.eye(5, dtype=dtype)
    torch.testing.assert_close(found.U[0].T @ found.U[0], unit, rtol=0, atol=ROUNDING[dtype])
    torch.testing.assert_close(found.V[0].T @ found.V[0], unit, rtol=0, atol=ROUNDING[dtype])


def test_products_are_counted() -> None:
    operator = DenseOperator(matrix(SPECTRA["decaying"])[None])
    found = truncated_svd(operator, 5)
    assert found.products == operator.products > 0


def test_multiplicity_costs_nothing_where_there_is_none() -> None:
    """The search for further copies of a singular value is for spectra that may hide one."""
    operator = DenseOperator(matrix(SPECTRA["slowly decaying"])[None])
    found = truncated_svd(operator, 10, 1e-6, block=BLOCK)
    # Without it, the bases hold twice as many vectors as there are products: 22 steps of 8 at most.
    assert found.products <= 2 * 11 * BLOCK


def test_giving_up_is_loud() -> None:
    operator = DenseOperator(matrix(SPECTRA["slowly decaying"])[None])
    with pytest.raises(NotConverged, match=r"residual .* after 48 products.*method='dense'"):
        truncated_svd(operator, 10, 1e-12, block=BLOCK, max_products=40)
    assert operator.products == 48  # whole steps of 8 + 8


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_products_are_refused(value: float) -> None:
    jacobian = gaussian(30)
    jacobian[3, 4] = value
    with pytest.raises(MeasurementError, match="not finite"):
        truncated_svd(DenseOperator(jacobian[None]), 3, block=4)


@pytest.mark.parametrize("k", [0, 31])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="1 … 30"):
        truncated_svd(DenseOperator(gaussian(30)[None]), k)


def test_a_batch_is_its_prompts_side_by_side() -> None:
    """Prompts that take equally many steps get the numbers they get alone, up to rounding."""
    jacobians = torch.stack([matrix(SPECTRA["decaying"], seed) for seed in range(3)])
    together = truncated_svd(DenseOperator(jacobians), 8, 1e-9, block=BLOCK)
    check(together, jacobians, 1e-9)
    for p, jacobian in enumerate(jacobians):
        alone = truncated_svd(DenseOperator(jacobian[None]), 8, 1e-9, block=BLOCK)
        assert alone.products == together.products
        for name in ("U", "S", "V"):
            mine, theirs = getattr(alone, name)[0], getattr(together, name)[p]
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)  # a product's rounding


def test_a_hard_prompt_in_the_batch_moves_another_by_the_tolerance_at_most() -> None:
    names = ["decaying", "slowly decaying", "flat", "30 times the largest, then slow"]
    jacobians = torch.stack([matrix(SPECTRA[name], seed) for seed, name in enumerate(names)])
    together = truncated_svd(DenseOperator(jacobians), 8, 1e-6, block=BLOCK)
    check(together, jacobians, 1e-6)


def test_the_seed_decides_and_only_the_seed() -> None:
    operator = DenseOperator(gaussian(60)[None])
    first, again, other = (truncated_svd(operator, 5, 1e-3, block=4, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.U, again.U)
    assert not torch.equal(first.U, other.U)
    # Singular values converge twice as fast as vectors: off by the square of the residual.
    torch.testing.assert_close(first.S, other.S, rtol=1e-5, atol=0)


shapes = st.integers(2, 40).flatmap(
    lambda d: st.tuples(st.just(d), st.integers(1, d), st.integers(1, 8), st.integers(0, 99))
)


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_law_any_size_any_block(shape: tuple[int, int, int, int]) -> None:
    d, k, block, seed = shape
    jacobian = gaussian(d, seed)[None]
    check(truncated_svd(DenseOperator(jacobian), k, 1e-9, block=block), jacobian, 1e-9)


clusters = st.lists(st.tuples(st.integers(1, 20), st.floats(0, 1)), min_size=1, max_size=6)


@given(clusters, st.integers(1, 30), st.integers(1, 8), st.sampled_from([0.0, 1e-6, 1e-4, 1e-3]))
@settings(max_examples=60, deadline=None)
def test_law_no_copy_of_a_singular_value_is_missed(
    several: list[tuple[int, float]], k: int, block: int, spread: float
) -> None:
    """Values many times over, exactly or nearly, in any number, whatever the block."""
    values = torch.cat([torch.full((count,), value) for count, value in several]).double()
    values = values + spread * torch.rand(len(values), generator=torch.Generator().manual_seed(0))
    spectrum = torch.cat([values, torch.full((20,), 0.01)]).sort(descending=True).values
    jacobian = matrix(spectrum)[None]
    found = truncated_svd(DenseOperator(jacobian), min(k, len(spectrum)), 1e-4, block=block)
    check(found, jacobian, 1e-4)


@given(shapes, st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None)
def test_law_scaling_scales_singular_values_alone(
    shape: tuple[int, int, int, int], factor: float
) -> None:
    d, k, block, seed = shape
    jacobian = matrix(0.7 ** torch.arange(d, dtype=torch.float64), seed)[None]
    once = truncated_svd(DenseOperator(jacobian), k, block=block)
    scaled = truncated_svd(DenseOperator(factor * jacobian), k, block=block)
    # The factor's rounding, 1e-16, grows by s_1 / s_d = 0.7^-39 = 1e6 in the last vectors.
    torch.testing.assert_close(scaled.S, factor * once.S, rtol=1e-8, atol=0)
    torch.testing.assert_close(scaled.U @ scaled.V.mT, once.U @ once.V.mT, rtol=0, atol=1e-8)


@given(shapes)
@settings(max_examples=25, deadline=None)
def test_law_a_change_of_basis_leaves_singular_values(shape: tuple[int, int, int, int]) -> None:
    d, k, block, seed = shape
    jacobian = gaussian(d, seed)
    turned = orthogonal(d, seed + 100) @ jacobian @ orthogonal(d, seed + 200).T
    once = truncated_svd(DenseOperator(jacobian[None]), k, 1e-8, block=block)
    again = truncated_svd(DenseOperator(turned[None]), k, 1e-8, block=block)
    # Each is within the tolerance of the truth.
    torch.testing.assert_close(again.S, once.S, rtol=0, atol=2e-8 * float(once.S.max()))


@given(st.integers(1, 20), st.integers(0, 99))
def test_law_signs_are_fixed_and_the_product_stays(d: int, seed: int) -> None:
    u, v = gaussian(d, seed), gaussian(d, seed + 1)
    fixed_u, fixed_v = fix_signs(u, v)
    assert (fixed_u.gather(0, u.abs().argmax(dim=0, keepdim=True)) > 0).all()
    assert torch.equal(fixed_u[:, :, None] * fixed_v.T, u[:, :, None] * v.T)
    assert torch.equal(fixed_u, fix_signs(-u, -v)[0])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SPECTRA)
def test_full_svd_keeps_the_top(name: str, dtype: torch.dtype) -> None:
    jacobian = matrix(SPECTRA[name]).to(dtype)[None]
    check(full_svd(jacobian, 12), jacobian, ROUNDING[dtype])


def test_residual_is_the_largest_relative_to_the_first() -> None:
    u = torch.eye(4, dtype=torch.float64)[None, :, :2]
    s = torch.tensor([[4.0, 1.0]], dtype=torch.float64)
    pushed = u * s[:, None, :]
    assert relative_residual(pushed, u, s) == 0
    pushed[0, 3, 1] = 3.0
    pushed[0, 2, 1] = 4.0
    assert float(relative_residual(pushed, u, s)) == 5.0 / 4.0
