"""Jacobians of 0 among others, in both methods, and through all of `decompose`."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from blockcoupling.jacobian.decompose import decompose
from blockcoupling.jacobian.degenerate import AtPrompt
from blockcoupling.jacobian.operator import DenseOperator, Operator, SomeOperator, StackedOperator

PROMPTS, BLOCKS, D, K = 3, 4, 60, 5


class LinearBlock(DenseOperator):
    """The Jacobians of f(x) = J x, which can be asked whether it changes."""

    def __init__(self, jacobian: Tensor, function: Tensor | None = None) -> None:
        super().__init__(jacobian)
        self._function = jacobian if function is None else function

    def unchanged(self) -> Tensor:
        return ~self._function.flatten(1).any(dim=1)


@pytest.fixture(scope="module")
def jacobians() -> Tensor:
    """Random Jacobians (block, prompt, d, d) whose singular values fall by 0.8 each."""
    generator = torch.Generator().manual_seed(0)
    shape = (BLOCKS, PROMPTS, D, D)
    left, right = (
        torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    return left * 0.8 ** torch.arange(D) @ right.mT


def operators(jacobians: Tensor) -> Callable[[int], Operator]:
    return lambda block: LinearBlock(jacobians[block].clone())


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("method", ["dense", "krylov", "auto"])
@pytest.mark.parametrize(
    "idle", [[(1, 0)], [(0, 0), (0, 1), (0, 2)], [(0, 1), (2, 1), (3, 2)]], ids=str
)
def test_a_zero_is_kept_and_the_others_are_as_without_it(
    jacobians: Tensor, idle: list[tuple[int, int]], method: str, full: bool
) -> None:
    with_zeros = jacobians.clone()
    for block, prompt in idle:
        with_zeros[block, prompt] = 0
    found = decompose(
        operators(with_zeros), BLOCKS, K, method=method, swapped=True, tolerance=1e-9, full=full
    )
    without = decompose(
        operators(jacobians), BLOCKS, K, method=method, swapped=True, tolerance=1e-9, full=full
    )
    zero = torch.zeros(PROMPTS, BLOCKS, dtype=torch.bool)
    for block, prompt in idle:
        zero[prompt, block] = True
    unit = torch.eye(D, K, dtype=torch.float64)
    assert (found.U[zero] == unit).all()
    assert (found.V[zero] == unit).all()
    for name in ("S", "A", "A_swapped", "norm", "norm_error", "residual"):
        assert not getattr(found, name)[zero].any(), name
    if full:
        assert found.S_full is not None
        assert not found.S_full[zero].any()
    # The iteration stops at 1e-9, and vectors are off by that over the gap, 0.2 s_k.
    near = {"rtol": 0, "atol": 1e-7}
    for name in ("S", "U", "V", "norm"):
        torch.testing.assert_close(
            getattr(found, name)[~zero], getattr(without, name)[~zero], **near
        )
    both = ~zero[:, :, None] & ~zero[:, None, :]
    for name in ("A", "A_swapped"):
        torch.testing.assert_close(getattr(found, name)[both], getattr(without, name)[both], **near)
    assert found.A.isfinite().all()


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_a_gradient_that_was_lost_is_refused(jacobians: Tensor, method: str) -> None:
    lost = jacobians.clone()
    lost[2, 1] = 0
    with pytest.raises(AtPrompt, match=r"block 3: .* exactly 0 .*without a gradient") as caught:
        decompose(lambda i: LinearBlock(lost[i], jacobians[i]), BLOCKS, K, method=method)
    assert caught.value.prompt == 1


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_where_nothing_can_be_asked_a_zero_is_refused(jacobians: Tensor, method: str) -> None:
    lost = jacobians.clone()
    lost[2, 1] = 0
    with pytest.raises(AtPrompt, match=r"block 3: .* exactly 0"):
        decompose(lambda i: DenseOperator(lost[i].clone()), BLOCKS, K, method=method)


def test_some_prompts_of_an_operator(jacobians: Tensor) -> None:
    chosen = torch.tensor([0, 2])
    some = SomeOperator(LinearBlock(jacobians[0]), chosen)
    vectors = torch.randn(2, D, 3, dtype=torch.float64)
    assert (some.prompts, some.dimension) == (2, D)
    assert torch.equal(some.matmat(vectors), jacobians[0, chosen] @ vectors)
    assert torch.equal(some.adjoint(vectors), jacobians[0, chosen].mT @ vectors)
    assert torch.equal(some.dense(), jacobians[0, chosen])


def test_operators_side_by_side_answer_for_their_own_prompts() -> None:
    members = [LinearBlock(torch.zeros(2, 3, 3)), LinearBlock(torch.ones(1, 3, 3))]
    assert StackedOperator(members).unchanged().tolist() == [True, True, False]
