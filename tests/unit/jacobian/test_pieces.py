"""Jacobians of the pieces between linear layers, each in its own form, against automatic ones."""

from collections.abc import Callable

import pytest
import torch
from architectures import prompt, small_model
from torch import Tensor
from torch.nn import functional

from blockcoupling.jacobian.accumulate import CutGraph
from blockcoupling.jacobian.pieces import (
    Blocks,
    Identity,
    Joined,
    LowRank,
    Mapped,
    Piece,
    Scaling,
    recognised,
)
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.recording import record_decode

N, HEADS = 24, 4
# Sums of some dozens of float64 products, and of a small least-squares problem.
ROUNDING = 1e-11


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


WEIGHT = random(N, seed=7)
MIXED = random(N, N, seed=8)


def rotated(x: Tensor) -> Tensor:
    """Each head is turned and normalised by itself, as queries are."""
    heads = x.unflatten(-1, (HEADS, -1))
    heads = heads + 0.5 * torch.cat([-heads[..., 3:], heads[..., :3]], dim=-1)
    return (heads / heads.norm(dim=-1, keepdim=True)).flatten(-2)


def grouped(x: Tensor) -> Tensor:
    """Two heads of the end share one of the leaf's, as with grouped keys."""
    heads = x.unflatten(-1, (HEADS // 2, -1)).softmax(-1)
    return heads.repeat_interleave(2, dim=-2).flatten(-2)


FORMS: dict[str, tuple[Callable[[Tensor], Tensor], int, type[Piece]]] = {
    "skip": (lambda x: x + 1, N, Identity),
    "activation": (torch.tanh, N, Scaling),
    "relu": (torch.relu, N, Scaling),
    "gate and input side by side": (
        lambda x: functional.silu(x[..., :N]) * x[..., N:],
        2 * N,
        Joined,
    ),
    "gate and input in turn": (lambda x: x[..., ::2].sigmoid() * x[..., 1::2], 2 * N, Blocks),
    "norm of squares": (lambda x: WEIGHT * x * (x * x).mean(-1, True).rsqrt(), N, LowRank),
    "norm": (lambda x: functional.layer_norm(x, (N,), WEIGHT), N, LowRank),
    "heads": (rotated, N, Blocks),
    "grouped heads": (grouped, N // 2, Blocks),
    "three kinds of heads side by side": (
        lambda x: rotated(x[..., :N]) * rotated(x[..., N : 2 * N]) + x[..., 2 * N :],
        3 * N,
        Joined,
    ),
    "everything": (lambda x: (x @ MIXED).tanh(), N, Mapped),
    "half a norm": (lambda x: x * x[..., :15].norm(dim=-1, keepdim=True), N, LowRank),
}


def pieces_of(function: Callable[[Tensor], Tensor], point: Tensor) -> list[Piece] | None:
    leaf = point.clone().requires_grad_(True)
    found = recognised(function(leaf), [leaf], len(point))
    return None if found is None else found[0]


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, prompts: int) -> None:
    function, width, kind = FORMS[form]
    point = random(prompts, width, seed=3)
    found = pieces_of(function, point)
    if kind is Mapped and prompts > 1:
        assert found is None
        return
    assert found is not None
    for piece, x in zip(found, point, strict=True):
        assert type(piece) is kind
        wanted = torch.func.jacrev(function)(x)
        rows, columns, to = random(5, N), random(width, 5), random(N, 5, seed=4)
        expected = rows @ wanted, wanted @ columns, to + wanted @ columns
        given = [x.clone() for x in (rows, columns)]
        made = piece.rows(rows), piece.columns(columns), piece.columns(columns, to.clone())
        for mine, theirs in zip(made, expected, strict=True):
            assert (mine - theirs).norm() < ROUNDING * theirs.norm()
        assert torch.equal(given[0], rows)  # nothing is written into what was given
        assert torch.equal(given[1], columns)


def nearly_diagonal(x: Tensor) -> Tensor:
    return x.tanh() + 1e-4 * x.roll(1, -1)


def diagonal_and_rank_three(x: Tensor) -> Tensor:
    return x.tanh() + (x @ random(N, 3, seed=5)).sin() @ random(3, N, seed=6)


@pytest.mark.parametrize("function", [nearly_diagonal, diagonal_and_rank_three])
def test_what_only_looks_like_a_form_is_not_taken_for_it(function: Callable) -> None:
    found = pieces_of(function, random(1, N, seed=3))
    assert found is not None
    assert type(found[0]) is Mapped


def test_prompts_that_change_places_are_no_form() -> None:
    """As tokens do that are sorted by the expert that they go to."""
    assert pieces_of(lambda x: x.flip(0).tanh(), random(3, N, seed=3)) is None


def test_terms_of_a_sum_share_their_piece() -> None:
    leaves = [random(1, N, seed=seed).requires_grad_(True) for seed in (1, 2)]
    found = recognised(functional.layer_norm(leaves[0] + leaves[1], (N,)), leaves)
    assert found is not None
    assert found[0][0] is found[1][0]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "mistral"])
def test_no_piece_of_a_common_block_is_left_to_automatic_products(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = small_model(family), prompt(7)
    call = record_decode(model, find_blocks(model, ids), ids)[0]
    graph = CutGraph(lambda x: call(x[:, None])[:, 0], call.input[:, 0])
    monkeypatch.setattr(Mapped, "__init__", lambda *args: pytest.fail("no form was found"))
    assert graph.known
