"""The tolerance policy of comparisons, at both sides of every limit."""

import pytest
import torch
from architectures import prompt, small_model
from full_jacobian import full_jacobian
from torch import Tensor, nn

from blockcoupling.transformer.agreement import (
    EPS,
    GROWN,
    ROUNDING,
    SAME,
    agree,
    agreeing,
    at_token,
    identical,
    pulled_back,
    random_like,
    repeats,
)
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.recording import record_full
from blockcoupling.transformer.running import differentiable


def unit(n: int, rows: int = 1) -> Tensor:
    """Rows of length 1, float64."""
    values = torch.randn(rows, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    return values / values.norm(dim=-1, keepdim=True)


def test_the_policy_has_three_steps() -> None:
    assert EPS == 2**-23
    assert ROUNDING < SAME < GROWN < 2e-3


@pytest.mark.parametrize("allowed", [SAME, GROWN])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_differences_are_relative_to_what_is_compared_with(allowed: float, size: float) -> None:
    theirs, off = size * unit(20), size * unit(20).flip(-1)
    assert agree(theirs + 0.9 * allowed * off, theirs, allowed)
    assert not agree(theirs + 1.1 * allowed * off, theirs, allowed)


def test_what_a_skip_connection_carries_hides_no_difference() -> None:
    """A block that adds little is compared by what it adds, and by the rounding of the sum."""
    carried, added, off = unit(20), 1e-2 * unit(30)[:, :20], unit(20).flip(-1)
    limit = SAME * added.norm() + ROUNDING
    theirs = carried + added
    assert agree(theirs + 0.99 * limit * off, theirs, carried=carried)
    assert not agree(theirs + 1.01 * limit * off, theirs, carried=carried)
    assert agree(theirs + 1.01 * limit * off, theirs)


def test_every_row_has_to_agree() -> None:
    theirs = unit(20, 3) * torch.tensor([[1e-3], [1.0], [1e3]]).double()
    mine = theirs.clone()
    mine[0] += 2 * SAME * theirs[0].flip(-1)
    assert agreeing(mine, theirs).tolist() == [False, True, True]
    assert not agree(mine, theirs)


def test_values_that_are_not_finite() -> None:
    """The same ones agree, so that they are reported where they are measured; others do not."""
    theirs = torch.tensor([[1.0, float("nan"), 2.0]])
    assert agree(theirs.clone(), theirs)
    assert identical(theirs.clone(), theirs)
    assert not agree(torch.tensor([[1.0, float("nan"), 2.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
    assert not agree(torch.tensor([[1.0, float("inf"), 2.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
    assert not identical(torch.zeros(2), torch.zeros(3))


def test_a_random_product_is_the_jacobians() -> None:
    model, ids = small_model("llama"), prompt(5)
    with differentiable(model):
        blocks = find_blocks(model, ids)
        call = record_full(model, blocks, ids)[1]
        x, y = at_token(call, 2)
        u = random_like(y.detach(), seed=3)
        wanted = full_jacobian(model, blocks.modules[1], ids, 2, 2).mT @ u + u
        # Softmax is in float32, over other tokens' order of sums.
        torch.testing.assert_close(pulled_back(x, y, u), wanted, rtol=0, atol=1e-6)
        assert agree(y.detach(), call.output[0, 2])
        assert repeats(call)
    lost = torch.ones(4)
    assert torch.equal(pulled_back(lost, lost * 2, lost), torch.zeros(4))


def test_a_random_tensor_is_the_same_each_time() -> None:
    like = torch.zeros(2, 5, dtype=torch.float64)
    assert torch.equal(random_like(like), random_like(like))
    assert not torch.equal(random_like(like), random_like(like, seed=1))
    assert torch.equal(random_like(like.float()), random_like(like).float())
    assert random_like(like, columns=1).shape == (2, 5, 1)


class Noisy(nn.Module):
    """A block that is random."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + torch.rand(())


def test_a_random_block_does_not_repeat() -> None:
    hidden = torch.ones(1, 2, 3)
    assert not repeats(BlockCall(Noisy(), (None,), {}, 0, hidden, hidden))
