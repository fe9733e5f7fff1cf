"""Whether two ways through a block agree: the one tolerance policy for outputs and Jacobians.

Tolerances are relative to the size of what is compared, and are those of float32 for float64 too,
since most models take their softmax in float32 in any case. NaN agrees with NaN: values that are
not finite are reported where they are measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from blockcoupling.transformer.calls import BlockCall

EPS = torch.finfo(torch.float32).eps
# A few sums: what a skip connection carries, or a function that does not change.
ROUNDING = 32 * EPS
# The same operations with sums in another order (another batch, another kernel). A different
# attention (another scale, a missing bias) is off by far more.
SAME = 1e3 * EPS
# Rounding that has grown through many blocks, or through a derivative. A token at another
# position, or past another context, is off by far more.
GROWN = 1e4 * EPS

UNREPEATABLE = "called again with the same arguments, returns a different output"
WHY_UNREPEATABLE = "it is random, or keeps state between calls"


def agreeing(
    mine: Float[Tensor, "*rows n"],
    theirs: Float[Tensor, "*rows n"],
    allowed: float = SAME,
    carried: Float[Tensor, "*rows n"] | None = None,
) -> Bool[Tensor, "*rows"]:
    """In which rows ‖mine − theirs‖ ≤ allowed · ‖theirs − carried‖ + ROUNDING · ‖carried‖.

    Args:
        mine: values to test.
        theirs: values to compare them with.
        allowed: `SAME` or `GROWN`.
        carried: the part of both that a skip connection carries unchanged; only what differs from
            it counts. None: 0.
    """
    mine, theirs = mine.nan_to_num(), theirs.nan_to_num()
    limit = allowed * (theirs if carried is None else theirs - carried).norm(dim=-1)
    if carried is not None:
        limit = limit + ROUNDING * carried.norm(dim=-1)
    return (mine - theirs).norm(dim=-1) <= limit


def agree(
    mine: Float[Tensor, "*rows n"],
    theirs: Float[Tensor, "*rows n"],
    allowed: float = SAME,
    carried: Float[Tensor, "*rows n"] | None = None,
) -> bool:
    """Whether all rows are `agreeing`."""
    return bool(agreeing(mine, theirs, allowed, carried).all())


def identical(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and the same values."""
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def repeats(call: BlockCall) -> bool:
    """Whether a block returns its recorded output when it is called again as it was."""
    with torch.no_grad():
        return agree(call(call.input), call.output)


def random_like(
    like: Float[Tensor, "*shape"], seed: int = 0, columns: int | None = None
) -> Float[Tensor, "*shape"]:
    """A random tensor to multiply Jacobians with, the same on every device.

    Args:
        like: a tensor of the wanted shape, data type and device.
        seed: of the random numbers.
        columns: append an axis of this length.
    """
    shape = (*like.shape, columns) if columns else like.shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(like)


def at_token(
    call: BlockCall, token: int
) -> tuple[Float[Tensor, " embed"], Float[Tensor, " embed"]]:
    """One token's state before a block, and after it with the graph of how it was computed."""
    whole = call.input.to(call.output.device)
    with torch.enable_grad():
        x = whole[0, token].detach().clone().requires_grad_(True)
        parts = [whole[:, :token], x[None, None], whole[:, token + 1 :]]
        hidden = torch.cat([part for part in parts if part.shape[1]], dim=1)
        return x, call(hidden)[0, token]


def pulled_back(
    x: Float[Tensor, " embed"], y: Float[Tensor, " embed"], u: Float[Tensor, " embed"]
) -> Float[Tensor, " embed"]:
    """(∂y/∂x)ᵀ u; zero if y has no gradient, which is reported where it is measured."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (pulled,) = torch.autograd.grad(y, x, u.to(y), allow_unused=True)
    return torch.zeros_like(x) if pulled is None else pulled
