"""Whole Jacobians accumulated from cut to cut, against the float64 full-sequence reference."""

import pytest
import torch
from architectures import FAMILIES, prompt, small_model
from full_jacobian import full_jacobian
from torch import Tensor
from torch.nn import functional

from blockcoupling.jacobian import batches
from blockcoupling.jacobian.accumulate import CutGraph
from blockcoupling.jacobian.block_operators import between_tokens, same_token
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.recording import record_decode, record_full

# As in test_block_operators: models' softmax is in float32 even where their weights are in float64.
EXACT = 2e-6
# Sums of some ten float64 products.
ROUNDING = 1e-12


@pytest.fixture
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CUT_FROM", 0)
    monkeypatch.setattr(batches, "rows_at_once", lambda dimension, tokens: 3)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_jacobian(family: str) -> None:
    model, ids = small_model(family), prompt(9)
    for call in record_decode(model, find_blocks(model, ids[:, :4]), ids):
        operator = same_token([call])
        wanted = full_jacobian(model, call.block, ids, 8, 8)
        assert relative(operator.dense()[0], wanted) < EXACT
        assert operator.dense_products <= operator.dimension


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon_7b", "gemma2"])
def test_several_prompts_and_pairs_of_tokens(family: str) -> None:
    model, prompts = small_model(family), [prompt(n, seed=n) for n in (9, 1, 6)]
    blocks = find_blocks(model, prompts[0])
    recorded = [record_decode(model, blocks, ids) for ids in prompts]
    for index, block in enumerate(blocks.modules):
        found = same_token([calls[index] for calls in recorded]).dense()
        for jacobian, ids in zip(found, prompts, strict=True):
            last = ids.shape[1] - 1
            assert relative(jacobian, full_jacobian(model, block, ids, last, last)) < EXACT
        across = between_tokens(record_full(model, blocks, prompts[0])[index], 4, 7).dense()[0]
        assert relative(across, full_jacobian(model, block, prompts[0], 4, 7)) < EXACT


def test_a_gated_unit_and_attention_count_once() -> None:
    """The products that are left of a Llama block: see the docstring of the module."""
    model, ids = small_model("llama"), prompt(6)
    call = record_decode(model, find_blocks(model, ids), ids)[0]
    d, wide = 32, 40
    graph = CutGraph(lambda x: call(x[:, None])[:, 0], call.input[:, 0])
    needed = wide * d + d * d + d * d  # through the unit; output layer; all of attention
    weights = 3 * wide * d + 4 * d * d
    assert graph.products == pytest.approx(d * needed / weights)


def twice(x: Tensor) -> Tensor:
    """One array for two layers, one of them without a norm before it; a layer on x itself."""
    a, b, c = random(9, 7, seed=1), random(9, 7, seed=2), random(7, 9, seed=3)
    hidden = torch.tanh(functional.linear(x, a)) * functional.linear(x, b)
    return x + functional.linear(hidden, c)


def written_into(x: Tensor) -> Tensor:
    """An array that changes between the layers that read it."""
    a, b = random(7, 7, seed=1), random(7, 7, seed=2)
    y = x.sin()
    first = functional.linear(y, a)
    y += x.cos()
    return first.tanh() * functional.linear(y, b)


def with_a_dead_end(x: Tensor) -> Tensor:
    """A layer whose output nobody uses, and one whose input does not depend on x."""
    a, b = random(7, 7, seed=1), random(7, 7, seed=2)
    functional.linear(x.exp(), a)
    return functional.linear(x.tanh(), b) * functional.linear(torch.ones(1, 7).double(), a)


def scaled(x: Tensor) -> Tensor:
    """Unit vectors that meet their layer scaled, as after a layer scale."""
    scale, a = random(7, seed=4), random(7, 7, seed=1)
    return x + scale * torch.addmm(scale, x.tanh(), a)


PARAMETERS = [random(*size, seed=5).requires_grad_() for size in ((7,), (9, 7), (7, 9))]


def with_weights_that_learn(x: Tensor) -> Tensor:
    """Parameters as a model just made has them."""
    norm, a, b = PARAMETERS
    inner = norm * x.tanh()
    hidden = functional.linear(inner, a, a[:, 0]).sin() * functional.linear(inner, 2 * a.detach())
    return norm * x + functional.linear(hidden, b, norm)


def through_nothing(x: Tensor) -> Tensor:
    return x.tanh()


@pytest.mark.parametrize("entries", [1, 20, 50, 1000])
@pytest.mark.parametrize(
    "function",
    [twice, written_into, with_a_dead_end, scaled, with_weights_that_learn, through_nothing],
)
def test_whatever_a_block_does(function, entries: int) -> None:
    x = random(1, 7, seed=9)
    wanted = torch.func.jacrev(function)(x)[0, :, 0].detach()
    graph = CutGraph(function, x, entries)
    found = graph.jacobian()
    assert not found.requires_grad
    assert relative(found, wanted) < ROUNDING
    assert relative(graph.output, function(x).detach()) < ROUNDING


def test_a_constant_has_a_jacobian_of_zero() -> None:
    weight = random(7, 7)
    graph = CutGraph(lambda x: functional.linear(x.detach(), weight), random(1, 7))
    assert not graph.output_requires_grad
