"""Products without automatic differentiation, against the matrix and the float64 reference."""

import pytest
import torch
from architectures import prompt, small_model
from full_jacobian import full_jacobian
from torch import Tensor
from torch.nn import functional

from blockcoupling.jacobian import batches, block_jacobian
from blockcoupling.jacobian.accumulate import CutGraph
from blockcoupling.jacobian.block_operators import same_token
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.recording import record_decode

# As in test_block_operators: models' softmax is in float32 even where their weights are in float64.
EXACT = 2e-6
# Sums of some hundred float64 products.
ROUNDING = 1e-12


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


# Gated, fused, parallel, with norms after it, and with pieces without a form (a router).
@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon_7b", "gemma2", "mixtral"])
def test_products_of_several_prompts(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of prompts of several lengths; more vectors than go through the block at a time."""
    monkeypatch.setattr(batches, "CUT_FROM", 0)
    monkeypatch.setattr(batches, "rows_at_once", lambda dimension, tokens: 12)
    model, prompts = small_model(family), [prompt(n, seed=n) for n in (9, 6)]
    blocks = find_blocks(model, prompts[0][:, :4])
    recorded = [record_decode(model, blocks, ids) for ids in prompts]
    block, calls = blocks.modules[-1], [calls[-1] for calls in recorded]
    operator = same_token(calls)
    wanted = torch.stack(
        [full_jacobian(model, block, ids, ids.shape[1] - 1, ids.shape[1] - 1) for ids in prompts]
    )
    x, y = random(2, operator.dimension, 8, seed=1), random(2, operator.dimension, 8, seed=2)
    pushed, pulled = operator.matmat(x), operator.adjoint(y)
    assert relative(pushed, wanted @ x) < EXACT
    assert relative(pulled, wanted.mT @ y) < EXACT
    # ⟨Y, J X⟩ = ⟨Jᵀ Y, X⟩.
    assert abs((y * pushed).sum() - (pulled * x).sum()) < EXACT * y.norm() * pushed.norm()


def gated(x: Tensor) -> Tensor:
    a, b, c = (random(*size, seed=i) for i, size in enumerate(((40, 32), (40, 32), (32, 40))))
    norm = x / (1e-3 + x.pow(2).mean(-1, keepdim=True)).sqrt()
    hidden = functional.linear(norm, a).tanh() * functional.linear(norm, b)
    return x + functional.linear(hidden, c)


def without_x_itself(x: Tensor) -> Tensor:
    """The last layer's output is y; its input's graph begins with one layer twice."""
    a, b = random(40, 32, seed=1), random(32, 40, seed=2)
    hidden = functional.linear(x.tanh(), a)
    return functional.linear(hidden * hidden.sin(), b)


def one_layers_output_at_two_inputs(x: Tensor) -> Tensor:
    a, b = random(32, 32, seed=1), random(32, 32, seed=2)
    hidden = functional.linear(x, a)
    return functional.linear(hidden.tanh(), b) + functional.linear(hidden, a) + hidden


def with_a_dead_end(x: Tensor) -> Tensor:
    a, b = random(32, 32, seed=1), random(32, 32, seed=2)
    functional.linear(x.exp(), a)
    return functional.linear(x.tanh(), b) * functional.linear(torch.ones(32).double(), a)


@pytest.mark.parametrize(
    "function", [gated, without_x_itself, one_layers_output_at_two_inputs, with_a_dead_end]
)
def test_products_agree_with_automatic_differentiation(function) -> None:
    point = random(3, 32, seed=9)
    wanted = torch.stack([torch.func.jacrev(function)(one).detach() for one in point])
    factored = CutGraph(function, point).factored
    assert factored is not None
    x, y = random(3, 5, 32, seed=1), random(3, 5, 32, seed=2)
    kept = x.clone(), y.clone()
    assert relative(factored.push(x), x @ wanted.mT) < ROUNDING
    assert relative(factored.pull(y), y @ wanted) < ROUNDING
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])


def test_a_piece_without_a_form_is_differentiated() -> None:
    """Cumulative sums have no form: products are those of the graph."""

    def function(x: Tensor) -> Tensor:
        a = random(300, 300, seed=1) / 17
        return x + functional.linear(x.cumsum(-1).sin().cumsum(-1), a)

    point = random(1, 300, seed=9)
    assert CutGraph(function, point).factored is None
    operator = block_jacobian.BlockJacobian(function, point, residual=True)
    wanted = torch.func.jacrev(function)(point)[0, :, 0].detach() - torch.eye(300)
    x = random(1, 300, 4, seed=1)
    assert relative(operator.matmat(x)[0], wanted @ x[0]) < ROUNDING
    assert relative(operator.adjoint(x)[0], wanted.mT @ x[0]) < ROUNDING
