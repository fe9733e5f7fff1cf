"""The reference that speed is measured against is right: against float64 autograd."""

import pytest
import torch
from benchmarks import by_hand
from benchmarks.shapes import Shape, random_llama
from full_jacobian import full_jacobian

import blockcoupling as bc

SHAPE = Shape("d = 48", 48, 3, 6, 2, 80)


@pytest.fixture
def model() -> torch.nn.Module:
    model = random_llama(SHAPE, dtype=torch.float64)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(5.0)
    return model


def test_jacobians_triples_and_products(model: torch.nn.Module) -> None:
    ids = torch.arange(9)[None] * 7 % 100
    exact = []
    for seen in by_hand.record(model, ids):
        wanted = full_jacobian(model, seen.layer, ids, 8, 8)
        found = by_hand.block_jacobian(seen)
        # Sums of float64; the model's own softmax and norms are in float32.
        assert float((found - wanted).norm() / wanted.norm()) < 2e-6
        exact.append(wanted)
    found = by_hand.measure(model, ids, 4)
    values = torch.linalg.svdvals(torch.stack(exact))[:, :4]
    assert float(((found.S - values) / values[:, :1]).abs().max()) < 1e-5
    ds = bc.measure(model, lambda text: ids, ["numbers"], k=4)
    mine, theirs = (
        torch.linalg.norm(a, dim=(-2, -1)) for a in (found.A, torch.tensor(ds["A"].values[0, 0]))
    )
    # Norms do not depend on signs; vectors are off by the tolerance over a gap.
    assert float(((mine - theirs) / theirs).abs().max()) < 1e-2
