"""The top singular triples of Jacobians that are there as matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from blockcoupling.jacobian.method import SMALL_DIMENSION
from blockcoupling.jacobian.operator import DenseOperator
from blockcoupling.jacobian.svd import NotConverged, SingularTriples, full_svd, truncated_svd
from blockcoupling.jacobian.zero_triples import beside_zeros

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def takes_full_svd(d: int, k: int) -> bool:
    """Whether a d × d matrix is decomposed whole for its top k triples, and not by an iteration."""
    return d <= SMALL_DIMENSION or 8 * k > d


def dense_triples(
    jacobian: Float[Tensor, "prompt embed embed"], k: int, tolerance: float, full: bool, seed: int
) -> tuple[SingularTriples, Tensor | None]:
    """The top-k triples of Jacobians that are there as matrices, and all singular values if asked.

    Of a Jacobian that is 0, see `zero_triples`.

    Args:
        jacobian: (prompt, d, d).
        k: how many.
        tolerance: residual of the iteration, where the width makes one worthwhile.
        full: also return all singular values, (prompt, d), on the CPU.
        seed: of the iteration's random start.
    """
    d = jacobian.shape[-1]

    def solve(some: Int[Tensor, " some"] | None) -> SingularTriples:
        present = jacobian if some is None else jacobian[some]
        if full:
            return full_svd(present, d)
        if takes_full_svd(d, k):
            return full_svd(present, k)
        try:
            return truncated_svd(
                DenseOperator(present), k, tolerance, max_products=2 * d, seed=seed
            )
        except NotConverged:
            # A flat spectrum: LAPACK's full SVD is the certain way, and costs no new products.
            return full_svd(present, k)

    zero = ~jacobian.flatten(1).any(dim=1).cpu()
    found = beside_zeros(zero, solve, jacobian[..., : d if full else k])
    if not full:
        return found, None
    # Copies: views would keep all d vectors of every block.
    u, v = found.U[..., :k].clone(), found.V[..., :k].clone()
    return replace(found, U=u, S=found.S[:, :k], V=v), found.S.cpu()
