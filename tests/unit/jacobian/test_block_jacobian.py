"""Products of few vectors and of many, in full precision and in lower, against the matrix."""

import pytest
import torch
from architectures import FAMILIES, prompt, small_model

from blockcoupling.jacobian import block_jacobian, linear_maps
from blockcoupling.jacobian.batches import NARROW
from blockcoupling.jacobian.block_operators import between_tokens, same_token
from blockcoupling.jacobian.matmul import Matmul
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.recording import record_decode, record_full

# As in test_block_operators: models' softmax is in float32 even with float64 weights.
EXACT = 2e-6


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_few_vectors_at_a_time(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of a few vectors (a row of a batch each) and of many agree with the matrix."""
    # As with larger models and several threads.
    monkeypatch.setattr(linear_maps, "SMALLEST", 0)
    monkeypatch.setattr(block_jacobian, "shared_out", lambda device: linear_maps.ConstantWeights())
    model, ids = small_model(family), prompt(6)
    for call in record_decode(model, find_blocks(model, ids), ids):
        operator = same_token([call])
        (jacobian,) = operator.dense()
        for k in (1, 3, 3, 8, 8, 3, NARROW + 1):
            vectors = torch.randn(1, operator.dimension, k, dtype=torch.float64)
            assert relative(operator.matmat(vectors)[0], jacobian @ vectors[0]) < EXACT
            assert relative(operator.adjoint(vectors)[0], jacobian.T @ vectors[0]) < EXACT


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
