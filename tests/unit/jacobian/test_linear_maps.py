import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from blockcoupling.jacobian import linear_maps
from blockcoupling.jacobian.linear_maps import ConstantWeights, times

# Sums of a few hundred float64 products in another order.
EXACT = 1e-13


@pytest.fixture(autouse=True)
def panels_for_small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_maps, "SMALLEST", 0)


@given(
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([2, 4, 8]),
    st.booleans(),
)
def test_panels_are_the_matrix(rows: int, n: int, m: int, panels: int, by_column: bool) -> None:
    x = torch.randn(rows, n, dtype=torch.float64)
    matrix = torch.randn(m, n, dtype=torch.float64).mT if by_column else torch.randn(n, m).double()
    expected = torch.einsum("rn,nm->rm", x, matrix)
    error = (times(x, matrix, panels) - expected).norm()
    assert error <= EXACT * x.norm() * matrix.norm()


def test_a_matrix_with_gaps_in_memory() -> None:
    x, wide = torch.randn(3, 8, dtype=torch.float64), torch.randn(8, 40, dtype=torch.float64)
    assert torch.allclose(times(x, wide[:, ::2]), x @ wide[:, ::2].contiguous(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("layer", ["linear", "linear without bias", "addmm"])
def test_layers_and_their_derivatives(layer: str) -> None:
    """Output, gradient, batched gradients, and the derivative of the gradient in its cotangent."""
    weight, bias = torch.randn(12, 8, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    offset = torch.zeros_like(bias) if layer == "linear without bias" else bias
    with ConstantWeights():
        if layer == "addmm":
            y = torch.addmm(bias, x, weight.mT.contiguous())
        else:
            y = functional.linear(x, weight, None if "without" in layer else bias)
        u = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, x, u, create_graph=True)
    assert type(y.grad_fn).__name__ != "AddmmBackward0", "the layer has not been replaced"
    close = {"rtol": 0, "atol": 1e-12}
    assert torch.allclose(y, x @ weight.mT + offset, **close)
    assert torch.allclose(pulled, u @ weight, **close)
    many = torch.randn(3, 5, 12, dtype=torch.float64)
    mapped = torch.vmap(lambda c: torch.autograd.grad(y, x, c, retain_graph=True)[0])(many)
    assert torch.allclose(mapped, many @ weight, **close)
    tangent = torch.randn(5, 8, dtype=torch.float64)
    (pushed,) = torch.autograd.grad(pulled, u, tangent)
    assert torch.allclose(pushed, tangent @ weight.mT, **close)


def test_what_is_not_a_constant_matrix_is_left_alone() -> None:
    x = torch.randn(5, 8, requires_grad=True)
    computed = x.exp().mT @ x  # (8, 8), of a graph of its own
    with ConstantWeights():
        y = functional.linear(x, computed)
        scaled = torch.addmm(torch.ones(8), x, torch.eye(8), beta=2.0)
    (through_both,) = torch.autograd.grad(y.sum(), x)
    z = x.detach().requires_grad_(True)
    (expected,) = torch.autograd.grad((z @ (z.exp().mT @ z).mT).sum(), z)
    # Sums of forty float32 products.
    assert torch.allclose(through_both, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(scaled, x + 2)


def test_a_result_can_be_written_into() -> None:
    """As Llama 4 does with the scores of its router."""
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 6, dtype=torch.float64)
    with ConstantWeights():
        y = functional.linear(x, weight)
        y.mul_(2)
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    torch.testing.assert_close(gradient, 2 * weight.sum(0).expand(5, -1), rtol=EXACT, atol=0)
