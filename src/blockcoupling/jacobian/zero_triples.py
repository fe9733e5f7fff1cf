"""Singular triples of a batch in which some Jacobians are 0.

A Jacobian of 0 has singular values 0 and arbitrary vectors: here the first unit vectors, so that
they are orthonormal and reproducible. Results that depend on them have no meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.jacobian.svd import SingularTriples

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def with_zeros(
    zero: Bool[Tensor, " prompt"],
    solve: Callable[[Int[Tensor, " some"] | None], SingularTriples],
    like: Float[Tensor, "any embed k"],
) -> SingularTriples:
    """The triples of all prompts: by `solve` for those whose Jacobian is not 0.

    Args:
        zero: for which prompts J = 0.
        solve: finds the triples of some prompts (None: of all).
        like: an array of the vectors' size, data type and device.
    """
    if not zero.any():
        return solve(None)
    prompts, (_, d, k) = len(zero), like.shape
    unit = torch.eye(d, k, dtype=like.dtype, device=like.device)
    u, v = (unit.repeat(prompts, 1, 1) for _ in range(2))
    s, residual = like.new_zeros(prompts, k), like.new_zeros(prompts)
    if zero.all():
        return SingularTriples(u, s, v, residual, 0)
    some = (~zero).nonzero()[:, 0].to(like.device)
    found = solve(some)
    u[some], s[some], v[some], residual[some] = found.U, found.S, found.V, found.residual
    return SingularTriples(u, s, v, residual, found.products)
