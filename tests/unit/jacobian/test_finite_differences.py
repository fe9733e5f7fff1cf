"""True zeros are distinguished from lost gradients, on functions where the answer is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from blockcoupling.jacobian.finite_differences import unchanged

D = 48


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHT = random(D, D) / D**0.5
BIAS = random(D, seed=1)
# An activation a thousand times the others, as language models have them.
MASSIVE = torch.ones(D, dtype=torch.float64).index_fill(0, torch.tensor([3]), 1e3)


def in_steps(x: Tensor, levels: int) -> Tensor:
    """Rounded to integers, as kernels do that have no gradient."""
    scale = x.abs().amax(dim=1, keepdim=True) / levels
    return (x / scale).round() * scale


CONSTANT: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: 0 * x,
    "a bias": lambda x: 0 * x + BIAS.to(x),
    "a large bias": lambda x: 0 * x + 1e3 * BIAS.to(x),
    "dead units": lambda x: torch.relu(x @ WEIGHT.to(x) - 1e6),
}
CHANGING: dict[str, Callable[[Tensor], Tensor]] = {
    "a layer": lambda x: x @ WEIGHT.to(x),
    "a small layer": lambda x: 1e-2 * x @ WEIGHT.to(x),
    "eight bits": lambda x: in_steps(x, 127) @ WEIGHT.to(x),
    "four bits": lambda x: in_steps(x, 7) @ WEIGHT.to(x),
    "of the direction alone": lambda x: x / x.norm(dim=1, keepdim=True) @ WEIGHT.to(x),
    "not finite elsewhere": lambda x: torch.where(x.norm(dim=1, keepdim=True) > 7, torch.nan, x),
    "minus itself": lambda x: -x,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("scale", [1.0, MASSIVE], ids=["even", "massive"])
@pytest.mark.parametrize(
    ("f", "constant"),
    [(name, True) for name in CONSTANT] + [(name, False) for name in CHANGING],
)
def test_what_changes_and_what_does_not(
    f: str, constant: bool, scale: float | Tensor, residual: bool, dtype: torch.dtype
) -> None:
    inner = (CONSTANT | CHANGING)[f]
    point = (scale * random(3, D, seed=5)).to(dtype)

    def function(x: Tensor) -> Tensor:
        return x + inner(x) if residual else inner(x)

    if f == "of the direction alone" and scale is MASSIVE:
        pytest.skip("1 next to a state of 1000 is below the resolution")
    assert unchanged(function, point, residual).tolist() == [constant] * 3


def test_prompts_are_told_apart() -> None:
    point = random(3, D)
    keep = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)[:, None]
    assert unchanged(lambda x: keep * x, point, residual=False).tolist() == [True, False, True]
    assert unchanged(lambda x: x + keep * x, point, residual=True).tolist() == [True, False, True]


def test_a_state_of_zero_is_no_trouble() -> None:
    point = torch.zeros(1, D)
    assert unchanged(lambda x: 0 * x, point, residual=False).tolist() == [True]


def test_no_gradient_is_asked_for() -> None:
    def without(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return x.detach() @ WEIGHT

    assert unchanged(without, random(1, D).requires_grad_(), residual=False).tolist() == [False]
