"""Penalties on coupling during training: on m itself, and controls to compare with.

At a step, a few tokens and one ordered pair of blocks (i, j) are drawn. With U_j, V_j the top-K
singular vectors of J_j, S_i the K largest singular values of J_i and A = U_jᵀ J_i V_j,

    coupling:  m_K(J_i, J_j)² = ‖A − S_i‖_F² / ‖S_i‖_F², U_j, V_j and S_i held constant;
    sham:      the same with random orthonormal frames in place of U_j, V_j;
    norm:      ‖QᵀJ_i‖_F² over its own value held constant, Q a random orthonormal frame of K
               vectors: its gradient is that of ln ‖QᵀJ_i‖_F², which is about ‖J_i‖_F² in the mean.

What is held constant: the frames, the values, and the states that go into block i. The gradient
reaches the weights of block i alone, through J_i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from blockcoupling.config.models import Penalty
from blockcoupling.jacobian.with_weights import LastTokens, WeightedJacobian
from blockcoupling.transformer.blocks import Blocks

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Held(NamedTuple):
    """Constants of a penalty, without gradients.

    Attributes:
        left: U, (prompt, embed, k).
        right: V, (prompt, embed, k); None where J is not multiplied from the right.
        values: s_i, (prompt, k); for the norm ‖QᵀJ_i‖_F, (prompt, 1).
    """

    left: Float[Tensor, "prompt embed k"]
    right: Float[Tensor, "prompt embed k"] | None
    values: Float[Tensor, "prompt k"]


def held_for_coupling(
    jacobian: Float[Tensor, "prompt embed embed"],
    other: Float[Tensor, "prompt embed embed"],
    k: int,
) -> Held:
    """The singular vectors of J_j and the singular values of J_i."""
    u, _, vh = torch.linalg.svd(other)
    return Held(u[..., :k], vh[..., :k, :].mT, torch.linalg.svdvals(jacobian)[..., :k])


def held_for_sham(
    jacobian: Float[Tensor, "prompt embed embed"], k: int, draw: torch.Generator
) -> Held:
    """Two random frames and the singular values of J_i."""
    frames = [random_frames(jacobian, k, draw) for _ in range(2)]
    return Held(frames[0], frames[1], torch.linalg.svdvals(jacobian)[..., :k])


def held_for_norm(jacobian: WeightedJacobian, k: int, draw: torch.Generator) -> Held:
    """A random frame, and the norm of J_i within it."""
    frame = random_frames(jacobian.point, k, draw)
    norms = jacobian.from_left(frame).detach().flatten(1).norm(dim=1)
    return Held(frame, None, norms[:, None])


def random_frames(
    like: Float[Tensor, "prompt ... embed"], k: int, draw: torch.Generator
) -> Float[Tensor, "prompt embed k"]:
    """Haar-distributed orthonormal frames, of the device and dtype of a tensor."""
    normal = torch.randn(len(like), like.shape[-1], k, generator=draw, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    # Without the signs, Householder's choice of them would favour some frames over others.
    return (q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]).to(like)


def penalty(jacobian: WeightedJacobian, held: Held) -> Float[Tensor, " prompt"]:
    """The penalty of each prompt's last token, with a graph to the weights of its block."""
    seen = jacobian.from_left(held.left)
    if held.right is not None:
        seen = seen @ held.right - torch.diag_embed(held.values)
    return seen.square().sum((1, 2)) / held.values.square().sum(1)


class Penalties:
    """The penalties of a training, with pairs and tokens drawn at each step.

    Args:
        section: kind, K, tokens and pairs.
        draw: places tokens, pairs and frames; part of the training's state.
        blocks: the blocks of the model that is trained.
    """

    def __init__(self, section: Penalty, draw: torch.Generator, blocks: Blocks) -> None:
        self._section, self._draw, self._blocks = section, draw, blocks
        depth = len(blocks)
        self._pairs = [
            (i, j) for i in range(depth) for j in range(depth) if 0 < abs(i - j) <= section.distance
        ]

    def due(self, step: int) -> bool:
        """Whether there is a penalty at an update, numbered from 1."""
        return self._section.weight != 0 and step % self._section.every == 0

    def __call__(self, model: nn.Module, ids: Int[Tensor, "prompt token"]) -> Float[Tensor, ""]:
        """The weighted penalty on a few tokens of a batch.

        Args:
            model: the model, in either mode; measured as it is in evaluation, and left as it was.
            ids: the batch; one token each of its first prompts is taken, all at one position.
        """
        section = self._section
        i, j = self._pairs[self._integer(len(self._pairs))]
        last = 1 + self._integer(ids.shape[1] - 1)
        training = model.training
        model.eval()
        calls = LastTokens(model, self._blocks, ids[: section.tokens, : last + 1])
        jacobian = calls.jacobian(i)
        match section.kind:
            case "coupling":
                other = calls.jacobian(j).dense()
                held = held_for_coupling(jacobian.dense(), other, section.k)
            case "sham":
                held = held_for_sham(jacobian.dense(), section.k, self._draw)
            case "norm":
                held = held_for_norm(jacobian, section.k, self._draw)
        model.train(training)
        return section.weight * penalty(jacobian, held).mean()

    def _integer(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self._draw))
