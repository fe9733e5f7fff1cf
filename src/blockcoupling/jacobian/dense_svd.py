"""The top singular triples of Jacobians that are there as matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from blockcoupling.jacobian.method import SMALL_DIMENSION
from blockcoupling.jacobian.operator import DenseOperator
from blockcoupling.jacobian.svd import NotConverged, SingularTriples, full_svd, truncated_svd

if TYPE_CHECKING:
    from jaxtyping import Float


def dense_triples(
    jacobian: Float[Tensor, "prompt embed embed"], k: int, tolerance: float, full: bool, seed: int
) -> tuple[SingularTriples, Tensor | None]:
    """The top-k triples of Jacobians that are there as matrices, and all singular values if asked.

    Args:
        jacobian: (prompt, d, d).
        k: how many.
        tolerance: residual of the iteration, where the width makes one worthwhile.
        full: also return all singular values, (prompt, d), on the CPU.
        seed: of the iteration's random start.
    """
    d = jacobian.shape[-1]
    if full:
        whole = full_svd(jacobian, d)
        # Copies: views would keep all d vectors of every block.
        u, v = whole.U[..., :k].clone(), whole.V[..., :k].clone()
        kept = replace(whole, U=u, S=whole.S[:, :k], V=v)
        return kept, whole.S.cpu()
    if d <= SMALL_DIMENSION or 8 * k > d:
        return full_svd(jacobian, k), None
    operator = DenseOperator(jacobian)
    try:
        return truncated_svd(operator, k, tolerance, max_products=2 * d, seed=seed), None
    except NotConverged:
        # A flat spectrum: LAPACK's full SVD is the certain way, and costs no new products.
        return full_svd(jacobian, k), None
