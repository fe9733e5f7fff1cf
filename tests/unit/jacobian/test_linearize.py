"""Every path to a block's Jacobian against the float64 reference, on every family."""

import pytest
import torch
from architectures import FAMILIES, prompt, small_model
from full_jacobian import full_jacobian

from blockcoupling.jacobian import linear_maps, linearize
from blockcoupling.jacobian.linearize import (
    NARROW,
    DenseOperator,
    SameToken,
    between_tokens,
    same_token,
)
from blockcoupling.jacobian.matmul import Matmul
from blockcoupling.transformer.blocks import find_blocks, record_decode, record_full

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


@pytest.mark.parametrize("family", FAMILIES)
def test_a_few_vectors_at_a_time(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of a few vectors (a row of a batch each) and of many agree with the matrix."""
    # As with larger models and several threads.
    monkeypatch.setattr(linear_maps, "SMALLEST", 0)
    monkeypatch.setattr(linearize, "shared_out", lambda device: linear_maps.ConstantWeights())
    model, ids = small_model(family), prompt(6)
    for call in record_decode(model, find_blocks(model, ids), ids):
        operator = same_token([call])
        (jacobian,) = operator.dense()
        for k in (1, 3, 3, 8, 8, 3, NARROW + 1):
            vectors = torch.randn(1, operator.dimension, k, dtype=torch.float64)
            assert relative(operator.matmat(vectors)[0], jacobian @ vectors[0]) < EXACT
            assert relative(operator.adjoint(vectors)[0], jacobian.T @ vectors[0]) < EXACT


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


def test_earlier_token_from_a_later_one_is_refused() -> None:
    model, ids = small_model("llama"), prompt(5)
    call = record_full(model, find_blocks(model, ids), ids)[0]
    with pytest.raises(ValueError, match="t1 ≤ t2"):
        between_tokens(call, 4, 2)


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


def test_dense_operator_is_its_matrix() -> None:
    matrix = torch.randn(2, 5, 5, dtype=torch.float64)
    vectors = torch.randn(2, 5, 3, dtype=torch.float64)
    operator = DenseOperator(matrix)
    assert torch.equal(operator.matmat(vectors), matrix @ vectors)
    assert torch.equal(operator.adjoint(vectors), matrix.mT @ vectors)
    assert operator.dense() is matrix


@pytest.mark.parametrize("matmul", ["tf32", "bfloat16"])
@pytest.mark.parametrize("context", [False, True])
def test_products_of_lower_precision_know_their_error(matmul: Matmul, context: bool) -> None:
    model, ids = small_model("llama", torch.float32), prompt(9)
    blocks = find_blocks(model, ids)
    calls = record_full(model, blocks, ids) if context else record_decode(model, blocks, ids)
    for call in calls:
        if context:
            exact, lower = (between_tokens(call, 6, 8, m) for m in ("float32", matmul))
        else:
            exact, lower = (same_token([call], m) for m in ("float32", matmul))
        assert exact.matmul_error is None
        assert lower.matmul_error is not None
        found = float(lower.matmul_error[0])
        actual = relative(lower.dense(), exact.dense().double())
        # Four random vectors tell ‖J' − J‖_F / ‖J‖_F to some ten per cent.
        assert actual / 2 <= found <= 2 * actual + 1e-6  # and rounding
        # bfloat16 has 8 bits, TF32 is float32 on a CPU.
        assert (1e-4 < found < 0.1) if matmul == "bfloat16" else found < 1e-6
        vectors = torch.randn(1, lower.dimension, 3)
        assert relative(lower.matmat(vectors), lower.dense() @ vectors) < 0.1


@pytest.mark.parametrize("agrees", [True, False])
def test_how_a_block_attends_is_found_out_once(
    agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(linearize, "_agree", lambda *args: asked.append(agrees) or agrees)
    model, ids = small_model("llama"), prompt(6)
    calls = record_decode(model, find_blocks(model, ids), ids)
    operators = SameToken(lambda block: [calls[block]])
    first = operators(1)
    found = first.dense()
    assert asked == [agrees]
    second = operators(1)
    assert first.attention == second.attention == ("one-token" if agrees else "eager")
    assert torch.equal(found, second.dense())
    assert asked == [agrees]
