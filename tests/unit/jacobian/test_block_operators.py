"""Every path to a block's Jacobian against the float64 reference, on every family."""

import pytest
import torch
from architectures import FAMILIES, prompt, small_model
from full_jacobian import full_jacobian

from blockcoupling.jacobian.block_operators import between_tokens, same_token
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.recording import record_decode, record_full

# Models with float64 weights still take their softmax, and some their norms, in float32: two ways
# through the same block then differ by a few of its roundings (6e-8).
EXACT = 2e-6
# float32: rounding of the hidden states at 1.2e-7 passes through weights five times the usual.
SINGLE = 2e-4


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_same_token_jacobian_is_the_full_sequence_one(family: str) -> None:
    model, ids = small_model(family), prompt(9)
    blocks = find_blocks(model, ids[:, :4])
    calls = record_decode(model, blocks, ids)
    vectors = torch.randn(1, blocks.dimension, 3, dtype=torch.float64)
    for call in calls:
        wanted = full_jacobian(model, call.block, ids, 8, 8)
        operator = same_token([call])
        assert relative(operator.dense()[0], wanted) < EXACT
        assert relative(operator.matmat(vectors)[0], wanted @ vectors[0]) < EXACT
        assert relative(operator.adjoint(vectors)[0], wanted.T @ vectors[0]) < EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_jacobian_between_tokens_is_the_full_sequence_one(family: str) -> None:
    model, ids = small_model(family), prompt(7)
    blocks = find_blocks(model, ids[:, :4])
    for token_in, token_out in [(4, 6), (3, 3)]:
        for call in record_full(model, blocks, ids):
            wanted = full_jacobian(model, call.block, ids, token_in, token_out)
            found = between_tokens(call, token_in, token_out).dense()[0]
            assert relative(found, wanted) < EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_agrees_with_float64(family: str) -> None:
    ids = prompt(9)
    reference, model = small_model(family), small_model(family, torch.float32)
    exact_blocks, blocks = find_blocks(reference, ids), find_blocks(model, ids)
    calls = record_decode(model, blocks, ids)
    for block, call in zip(exact_blocks.modules, calls, strict=True):
        wanted = full_jacobian(reference, block, ids, 8, 8)
        assert relative(same_token([call]).dense()[0], wanted) < SINGLE


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_side_by_side_change_nothing(family: str) -> None:
    model = small_model(family)
    prompts = [prompt(length, seed=length) for length in (9, 4, 1, 6)]
    blocks = find_blocks(model, prompts[0])
    recorded = [record_decode(model, blocks, ids) for ids in prompts]
    for index in range(len(blocks)):
        together = same_token([calls[index] for calls in recorded])
        jacobians = together.dense()
        vectors = torch.randn(4, blocks.dimension, 2, dtype=torch.float64)
        pushed, pulled = together.matmat(vectors), together.adjoint(vectors)
        for p, calls in enumerate(recorded):
            alone = same_token([calls[index]]).dense()[0]
            assert relative(jacobians[p], alone) < EXACT
            assert relative(pushed[p], alone @ vectors[p]) < EXACT
            assert relative(pulled[p], alone.T @ vectors[p]) < EXACT


def test_context_is_held_apart_where_attention_goes_through_the_interface() -> None:
    """Which families take the fast path is a fact about speed worth noticing when it changes."""
    ids = prompt(6)
    fast = set()
    for family in FAMILIES:
        model = small_model(family)
        calls = record_decode(model, find_blocks(model, ids), ids)
        if all(same_token([call]).attention == "one-token" for call in calls):
            fast.add(family)
    assert {"llama", "gpt2", "gpt_neox", "mistral", "gemma", "gemma2", "phi", "olmo2"} <= fast


def test_later_tokens_change_nothing() -> None:
    model, ids = small_model("llama"), prompt(9)
    blocks = find_blocks(model, ids)
    short, long = record_full(model, blocks, ids[:, :6]), record_full(model, blocks, ids)
    for a, b in zip(short, long, strict=True):
        assert torch.equal(a.output, b.output[:, :6]) or relative(b.output[:, :6], a.output) < EXACT
        first, second = between_tokens(a, 5, 5).dense()[0], between_tokens(b, 5, 5).dense()[0]
        assert relative(second, first) < EXACT


def test_no_later_token_acts_on_an_earlier_one_in_a_causal_model() -> None:
    model, ids = small_model("llama"), prompt(5)
    call = record_full(model, find_blocks(model, ids), ids)[0]
    assert not between_tokens(call, 4, 2).dense().any()
    with pytest.raises(ValueError, match="tokens 5 → 2 of a prompt of 5"):
        between_tokens(call, 5, 2)


def test_jacobian_agrees_with_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    # All of it in float64, for once: differences of rounded values would hide the derivative.
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, **_: softmax(x, dim))
    model, ids = small_model("gpt_neox"), prompt(7)
    calls = record_decode(model, find_blocks(model, ids), ids)
    call = calls[1]
    direction = torch.randn(call.input.shape[-1], dtype=torch.float64)
    step = 1e-5
    x = call.input
    difference = (call(x + step * direction) - call(x - step * direction))[0, 0] / (2 * step)
    found = same_token([call]).matmat(direction[None, :, None])[0, :, 0] + direction
    # Central differences: error step² times third derivatives, and rounding 1e-16 / step.
    assert relative(found, difference) < 1e-7
