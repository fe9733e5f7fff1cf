"""The penalty's value and gradient, against definitions written out and finite differences."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from architectures import FAMILIES, prompt, small_model
from full_jacobian import full_jacobian
from torch import Tensor, nn
from toy_model import Block, Toy

from blockcoupling.config.models import Penalty
from blockcoupling.jacobian.with_weights import LastTokens
from blockcoupling.lab.training.penalty import (
    Held,
    Penalties,
    held_for_coupling,
    held_for_norm,
    held_for_sham,
    penalty,
    random_frames,
)
from blockcoupling.transformer.blocks import Blocks, find_blocks

K = 3


def several(length: int) -> Tensor:
    return torch.cat([prompt(length, seed) for seed in (0, 1)])


def defined(model: nn.Module, block: nn.Module, ids: Tensor, held: Held) -> np.ndarray:
    """The penalty by its definition, on Jacobians of whole passes of the model."""
    values = []
    for row in range(len(ids)):
        last = ids.shape[1] - 1
        jacobian = full_jacobian(model, block, ids[row : row + 1], last, last).numpy()
        seen = held.left[row].numpy().T @ jacobian
        if held.right is not None:
            seen = seen @ held.right[row].numpy() - np.diag(held.values[row].numpy())
        values.append(np.sum(seen**2) / np.sum(held.values[row].numpy() ** 2))
    return np.array(values)


def held_of(kind: str, calls: LastTokens, i: int, j: int, k: int = K) -> Held:
    draw = torch.Generator().manual_seed(0)
    jacobian = calls.jacobian(i)
    if kind == "norm":
        return held_for_norm(jacobian, k, draw)
    if kind == "sham":
        return held_for_sham(jacobian.dense(), k, draw)
    return held_for_coupling(jacobian.dense(), calls.jacobian(j).dense(), k)


def slope(value: Callable[[], np.ndarray], block: nn.Module, way: list[Tensor], h: float) -> float:
    """The mean penalty's change along a direction of the block's weights, to order h⁴."""

    def at(step: float) -> float:
        with torch.no_grad():
            for parameter, change in zip(block.parameters(), way, strict=True):
                parameter.add_(change, alpha=step)
        moved = float(value().mean())
        with torch.no_grad():
            for parameter, change in zip(block.parameters(), way, strict=True):
                parameter.sub_(change, alpha=step)
        return moved

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


@pytest.fixture
def _softmax_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Families take their softmax in float32, whose rounding finite differences would show."""
    softmax = nn.functional.softmax
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim))


def hold_against_differences(
    model: nn.Module,
    blocks: Blocks,
    ids: Tensor,
    kind: str = "coupling",
    pair: tuple[int, int] = (1, 0),
    h: float = 2e-3,
    close: float = 1e-6,
) -> None:
    i, j = pair
    block = blocks.modules[i].requires_grad_(True)
    calls = LastTokens(model, blocks, ids)
    held = held_of(kind, calls, i, j)
    found = penalty(calls.jacobian(i), held)
    assert found.detach().numpy() == pytest.approx(defined(model, block, ids, held), rel=1e-5)
    gradient = torch.autograd.grad(found.mean(), list(block.parameters()), allow_unused=True)
    generator = torch.Generator().manual_seed(1)
    way = [
        parameter.norm() * torch.randn(parameter.shape, generator=generator).to(parameter)
        / max(1, parameter.numel()) ** 0.5
        for parameter in block.parameters()
    ]  # fmt: skip
    with torch.no_grad():
        along = sum(
            float((g * w).sum()) for g, w in zip(gradient, way, strict=True) if g is not None
        )
    wanted = slope(lambda: defined(model, block, ids, held), block, way, h)
    assert abs(wanted) > 1e-3  # there is something to compare
    assert along == pytest.approx(wanted, rel=close)


# Differences to order h⁴ leave 1e-9 or so of a smooth function, roundings of float64 less.
@pytest.mark.usefixtures("_softmax_in_float64")
@pytest.mark.parametrize("kind", ["coupling", "sham", "norm"])
@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (2, 0)])
def test_gradient_is_that_of_finite_differences(kind: str, pair: tuple[int, int]) -> None:
    model, ids = small_model("gpt_neox"), several(7)
    blocks = find_blocks(model, ids[:1, :4])
    hold_against_differences(model, blocks, ids, kind, pair)


@pytest.mark.usefixtures("_softmax_in_float64")
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_of_every_family(family: str) -> None:
    model, ids = small_model(family), several(7)
    blocks = find_blocks(model, ids[:1, :4])
    # Where norms are taken in float32, 6e-8 of rounding over h shows. Where a block has kinks
    # (ReLU), the step is too short to pass one.
    h = 1e-6 if family == "opt" else 2e-3
    hold_against_differences(model, blocks, ids, h=h, close=2e-3)


class WithoutCache(Toy):
    """A model that takes no cache and returns none."""

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        return super().forward(input_ids)


def test_a_model_that_cannot_decode_is_taken_whole() -> None:
    torch.manual_seed(0)
    model = WithoutCache([Block(), Block()]).double().eval()
    ids = several(5)
    blocks = find_blocks(model, ids[:1])
    hold_against_differences(model, blocks, ids, pair=(0, 1))


@pytest.mark.usefixtures("_softmax_in_float64")
def test_a_prompt_of_one_token() -> None:
    model, ids = small_model("gpt_neox"), several(1)
    blocks = find_blocks(model, prompt(4))
    hold_against_differences(model, blocks, ids, pair=(0, 1))


def test_blocks_with_one_jacobian_have_no_penalty() -> None:
    torch.manual_seed(0)
    model = Toy([Block(), Block()]).double().eval()
    model.blocks[1].load_state_dict(model.blocks[0].state_dict())
    ids = several(5)
    calls = LastTokens(model, find_blocks(model, ids[:1]), ids)
    same = held_of("coupling", calls, 0, 1)
    assert penalty(calls.jacobian(0), same).detach().numpy() == pytest.approx([0, 0], abs=1e-20)
    with torch.no_grad():
        for own, other in zip(*(b.parameters() for b in model.blocks), strict=True):
            own.copy_(-other)
    calls = LastTokens(model, find_blocks(model, ids[:1]), ids)
    opposite = held_of("coupling", calls, 0, 1)
    # m(−J, J) = 2
    assert penalty(calls.jacobian(0), opposite).detach().numpy() == pytest.approx([4, 4])


def test_random_frames_are_orthonormal_and_have_no_preference() -> None:
    draw = torch.Generator().manual_seed(0)
    frames = random_frames(torch.zeros(4000, 5, dtype=torch.float64), 2, draw)
    assert torch.allclose(frames.mT @ frames, torch.eye(2, dtype=torch.float64), atol=1e-12)
    # Each entry has mean 0 and variance 1/5; four standard errors of 4000 draws.
    assert float(frames.mean(0).abs().max()) < 4 * (1 / 5 / 4000) ** 0.5
    assert torch.allclose(frames.square().mean(0), torch.full((5, 2), 0.2, dtype=torch.float64),
                          atol=4 * (2 * 0.2**2 / 4000) ** 0.5)  # fmt: skip


def penalties(**settings: object) -> tuple[Penalties, nn.Module]:
    model = small_model("gpt_neox", torch.float32).requires_grad_(True).train()
    blocks = find_blocks(model, prompt(4))
    section = Penalty.model_validate({"weight": 1.0, "k": K, **settings})
    return Penalties(section, torch.Generator().manual_seed(0), blocks), model


def touched(model: nn.Module, value: Tensor) -> set[int]:
    """Which blocks a gradient reaches; nothing else of the model may have one."""
    model.zero_grad()
    value.backward()
    have = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert all(".layers." in name for name in have)
    return {int(name.split(".layers.")[1].split(".")[0]) for name in have}


def test_each_penalty_reaches_one_block_and_all_take_their_turn() -> None:
    drawn, model = penalties()
    reached = [touched(model, drawn(model, several(9))) for _ in range(20)]
    assert all(len(each) == 1 for each in reached)
    assert set().union(*reached) == {0, 1, 2}
    assert model.training


@pytest.mark.parametrize(("distance", "pairs"), [(1, 4), (2, 6), (9, 6)])
def test_pairs_within_a_distance_in_both_orders(distance: int, pairs: int) -> None:
    drawn, _ = penalties(distance=distance)
    assert len(drawn._pairs) == pairs


def test_every_nth_step_and_its_weight() -> None:
    drawn, model = penalties(every=3)
    assert [step for step in range(1, 8) if drawn.due(step)] == [3, 6]
    weighted, same_model = penalties(weight=-0.5)
    assert float(weighted(same_model, several(9)).detach()) == pytest.approx(
        -0.5 * float(drawn(model, several(9)).detach())
    )
