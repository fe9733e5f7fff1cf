"""The top singular triples of Jacobians given as matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from blockcoupling.jacobian.operator import DenseOperator
from blockcoupling.jacobian.svd import NotConverged, SingularTriples, full_svd, truncated_svd
from blockcoupling.jacobian.work import SMALL_DIMENSION
from blockcoupling.jacobian.zero_triples import with_zeros

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def takes_full_svd(d: int, k: int) -> bool:
    """Whether a d × d matrix gets a full SVD for its top k triples, instead of an iteration."""
    return d <= SMALL_DIMENSION or 8 * k > d


def dense_triples(
    jacobian: Float[Tensor, "prompt embed embed"], k: int, tolerance: float, full: bool, seed: int
) -> tuple[SingularTriples, Tensor | None]:
    """The top-k triples of Jacobians given as matrices, and all singular values if requested.

    Args:
        jacobian: (prompt, d, d); for Jacobians that are 0, see `zero_triples`.
        k: number of triples.
        tolerance: residual of the iteration, if the width makes one worthwhile.
        full: also return all singular values, (prompt, d), on the CPU.
        seed: of the random start vectors.
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
            # A flat spectrum: LAPACK's full SVD always works and takes no more products.
            return full_svd(present, k)

    zero = ~jacobian.flatten(1).any(dim=1).cpu()
    found = with_zeros(zero, solve, jacobian[..., : d if full else k])
    if not full:
        return found, None
    # Copies: views would keep all d vectors of every block.
    u, v = found.U[..., :k].clone(), found.V[..., :k].clone()
    return replace(found, U=u, S=found.S[:, :k], V=v), found.S.cpu()
