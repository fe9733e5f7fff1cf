"""The top singular triples of Jacobians: block Golub–Kahan on products alone, or a full SVD.

The iteration is block Golub–Kahan bidiagonalization (Golub & Kahan 1965; in blocks, Golub, Luk &
Overton 1981) with full reorthogonalization and thick restarts (Baglama & Reichel 2005). It runs on
the adjoint, so that Jᵀ u_k = s_k v_k holds by construction and ‖J v_k − s_k u_k‖ converges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian.operator import DenseOperator, Operator

if TYPE_CHECKING:
    from jaxtyping import Float

    Basis = Float[Tensor, "prompt embed n"]


@dataclass(frozen=True)
class SingularTriples:
    """The top-K singular triples of P Jacobians; J ≈ U diag(S) Vᵀ.

    Attributes:
        U, V: (prompt, d, k), orthonormal columns, signs fixed by `fix_signs`.
        S: (prompt, k), descending.
        residual: (prompt,) the largest ‖J v_k − s_k u_k‖ / s_1 in the iteration.
        products: matrix-vector products with J or Jᵀ spent per prompt.
    """

    U: Float[Tensor, "prompt embed k"]
    S: Float[Tensor, "prompt k"]
    V: Float[Tensor, "prompt embed k"]
    residual: Float[Tensor, " prompt"]
    products: int


def fix_signs(u: Basis, v: Basis) -> tuple[Basis, Basis]:
    """Make the entry of largest magnitude in each u positive, and keep u vᵀ."""
    largest = u.abs().argmax(dim=-2, keepdim=True)
    sign = torch.where(u.gather(-2, largest) < 0, -1.0, 1.0).to(u.dtype)
    return u * sign, v * sign


def full_svd(jacobian: Float[Tensor, "prompt embed embed"], k: int) -> SingularTriples:
    """The top-k triples from LAPACK's SVD of the whole matrix.

    Args:
        jacobian: (prompt, d, d).
        k: number of triples to keep, at most d.
    """
    u, s, vh = torch.linalg.svd(jacobian)
    u, v = fix_signs(u[..., :k], vh.mT[..., :k])
    s = s[..., :k]
    residual = relative_residual(jacobian @ v, u, s)
    return SingularTriples(u, s, v, residual, jacobian.shape[-1])


def relative_residual(
    pushed: Basis, u: Basis, s: Float[Tensor, "prompt k"]
) -> Float[Tensor, " prompt"]:
    """Largest over k of ‖J v_k − s_k u_k‖ / s_1, given J V (0 for a zero Jacobian).

    Args:
        pushed: J V, (prompt, d, k).
        u: left singular vectors, (prompt, d, k).
        s: singular values, (prompt, k).
    """
    error = (pushed - u * s[:, None, :]).norm(dim=1).amax(dim=-1)
    return error / s[:, 0].clamp_min(torch.finfo(s.dtype).tiny)


class NotConverged(MeasurementError):
    """The iteration reached its limit of products before the tolerance."""

    def __init__(self, residual: float, tolerance: float, products: int) -> None:
        super().__init__(
            f"the SVD did not converge: residual {residual:.1e} s_1 after {products} products, "
            f"tolerance {tolerance:.1e}. Use a larger tolerance, or method='dense'."
        )


def truncated_svd(
    operator: Operator,
    k: int,
    tolerance: float = 1e-4,
    block: int | None = None,
    max_basis: int | None = None,
    max_products: int | None = None,
    seed: int = 0,
) -> SingularTriples:
    """The top-k singular triples by block Golub–Kahan, stopping at a residual.

    Args:
        operator: Jacobians of P prompts; only `matmat` and `adjoint` are used.
        k: number of triples, 1 ≤ k ≤ d.
        tolerance: stop when ‖J v_k − s_k u_k‖ ≤ tolerance · s_1 for every kept k and prompt.
        block: vectors a step.
        max_basis: restart when the bases have this many vectors.
        max_products: give up after this many products (default 8 d + 8 k).
        seed: of the random start vectors.

    Raises:
        ValueError: for a k out of range.
        NotConverged: if the residual is not reached within `max_products`.
    """
    d, prompts = operator.dimension, operator.prompts
    if not 1 <= k <= d:
        raise ValueError(f"k = {k}: a {d} × {d} Jacobian has 1 … {d} singular triples")
    cheap = isinstance(operator, DenseOperator)
    block = min(d, block or default_block(operator))
    max_basis = min(d, max(max_basis or max(8 * k, 512), k + 3 * block))
    max_products = max_products or 8 * d + 8 * k
    generator = torch.Generator().manual_seed(seed)

    def noise(columns: int) -> Basis:
        # The same for every prompt, so that its numbers do not depend on the batch.
        drawn = torch.randn(1, d, columns, generator=generator, dtype=torch.float64)
        return drawn.to(operator.device, operator.dtype).expand(prompts, -1, -1)

    empty = torch.zeros(prompts, d, 0, dtype=operator.dtype, device=operator.device)
    left, right = empty, empty
    # Jᵀ left = right · small, kept in float64: the small matrix decides when to stop.
    small = torch.zeros(prompts, 0, 0, dtype=torch.float64)
    new_left, _ = _extend(empty, noise(block), noise)
    # Products with a matrix cost less than looks at a small basis, which is rarely large enough;
    # a fifth of a small matrix may be.
    spent, next_check = 0, max(4 * k, min(7 * block, d // 5)) if cheap else 3 * k
    drawn, not_before = block, 0
    looks: list[tuple[int, float]] = []
    while True:
        pulled = operator.adjoint(new_left)
        new_right, coefficients = _extend(right, pulled, noise)
        right = torch.cat([right, new_right], dim=-1)
        left = torch.cat([left, new_left], dim=-1)
        small = _grow(small, coefficients)
        pushed = operator.matmat(new_right)
        spent += new_left.shape[-1] + new_right.shape[-1]
        n = left.shape[-1]
        outside, leftover = _extend(left, pushed, noise, room=d - n, want_leftover=True)
        complete = outside.shape[-1] == 0
        if complete or n >= next_check or spent >= max_products:
            u, s, v = _ritz(small, min(k, n), operator.dtype)
            # J v_k − s_k u_k lies outside the left basis and comes from the last block alone.
            tail = v[:, n - new_right.shape[-1] :, :]
            residual = (leftover @ tail).norm(dim=1).amax(dim=-1) / s[:, 0].clamp_min(1e-300)
            worst = float(residual.max())
            converged = worst <= tolerance and n >= k and spent >= not_before
            doubtful = converged and _widest_cluster(s, tolerance) >= drawn
            if complete or (converged and not doubtful):
                break
            if spent >= max_products:
                raise NotConverged(worst, tolerance, spent)
            if doubtful:
                # A cluster may have more singular values than the random vectors can reach: draw
                # as many vectors again, and give them as many products as the first ones had.
                fresh = noise(min(drawn, d - n - outside.shape[-1]))
                if fresh.shape[-1]:
                    fresh, _ = _extend(torch.cat([left, outside], dim=-1), fresh, noise)
                    outside = torch.cat([outside, fresh], dim=-1)
                drawn, not_before = 2 * drawn, 2 * spent
                block = outside.shape[-1]
                max_basis = min(d, max(max_basis, k + 3 * block))
            looks.append((n, worst))
            next_check = n + _patience(looks, tolerance, block, cheap)
        if n + outside.shape[-1] > max_basis:
            keep = min(n - new_right.shape[-1], k + max(block, k // 2))
            u, s, v = _ritz(small, keep, operator.dtype)
            left = left @ u.to(left)
            right = right @ v.to(right)
            small = torch.diag_embed(s)
            looks.clear()
            next_check = keep + 2 * block
        new_left = outside
    u_ritz, v_ritz = left @ u.to(left), right @ v.to(right)
    u_ritz, v_ritz = fix_signs(u_ritz, v_ritz)
    return SingularTriples(u_ritz, s.to(u_ritz), v_ritz, residual.to(u_ritz), spent)


def default_block(operator: Operator) -> int:
    """Vectors a step.

    Small blocks converge in fewer products, but a weight read from memory must serve enough
    vectors (all prompts counted) to be worth the reading.
    """
    if isinstance(operator, DenseOperator):
        return 16
    return max(4, min(8, 64 // operator.prompts))


def _patience(looks: Sequence[tuple[int, float]], tolerance: float, block: int, cheap: bool) -> int:
    """How many vectors to add to the basis before the residual is computed again.

    Residuals fall about geometrically with the number of blocks: at the rate between the last two
    checks or, after the first check, by a factor of 4 a step. A check costs a decomposition of the
    small matrix, which grows with its size; going too far costs products, which are cheap if the
    Jacobian is a matrix.

    Args:
        looks: size of the basis and residual at each check so far.
        tolerance: of the residual.
        block: vectors a step.
        cheap: whether the Jacobian is a matrix.
    """
    n, residual = looks[-1]
    a_step = math.log(4)
    if len(looks) > 1 and residual < looks[-2][1]:
        before, larger = looks[-2]
        a_step = math.log(larger / max(residual, 1e-300)) * block / (n - before)
    steps = math.log(max(residual / tolerance, 1.0)) / a_step
    # Residuals often fall faster and faster, so a check is rather a step early than late.
    return block * max(1, min(int(steps), n // ((2 if cheap else 4) * block)))


def _widest_cluster(s: Float[Tensor, "prompt k"], tolerance: float) -> int:
    """Size of the largest cluster of singular values above a smaller one.

    From b random vectors, products with JᵀJ reach b vectors of a multiple singular value and no
    more. The same holds for values that the residual cannot distinguish, which a distance of
    4 · tolerance · s_1 includes. A cluster at the end of the list is complete enough: any of its
    vectors will do.
    """
    below = s[:, :, None] - s[:, None, :]
    together = (below >= 0) & (below <= 4 * tolerance * s[:, :1, None])
    above_another = below[:, :, -1] > tolerance * s[:, :1]
    return int((together.sum(dim=2) * above_another).max())


def _extend(
    basis: Basis,
    vectors: Basis,
    noise: Callable[[int], Basis],
    room: int | None = None,
    want_leftover: bool = False,
) -> tuple[Basis, Float[Tensor, "prompt m b"]]:
    """Orthonormal vectors that, with the basis, span the given ones.

    Directions that the basis already contains are replaced by random ones, so that an early
    invariant subspace (rank-deficient J, repeated singular values) does not stop the search.

    Returns:
        The new vectors (prompt, d, b) and the coefficients of `vectors` in basis and new ones
        together (prompt, n + b, b), or in the new ones alone if `want_leftover`; float64, CPU.
    """
    original = vectors
    d = vectors.shape[1]
    room = d - basis.shape[-1] if room is None else room
    info = torch.finfo(vectors.dtype)
    scale = vectors.norm(dim=1).amax(dim=-1)[:, None, None].clamp_min(info.tiny)
    if not bool(torch.isfinite(scale).all()):
        raise MeasurementError("the Jacobian's products are not finite")
    rest = _project_out(basis, _project_out(basis, vectors)) / scale
    new, r = torch.linalg.qr(rest[..., :room])
    length = r.diagonal(dim1=1, dim2=2).abs()[:, None, :]
    if bool((length <= 2 * info.eps).any()):
        # Dependent columns: without pivoting, QR may assign most of a later column to the
        # rounding error of an earlier one, so that every column would seem to be needed.
        new, length, _ = torch.linalg.svd(rest, full_matrices=False)
        new, length = new[..., :room], length[:, None, :room]
        new = torch.where(length <= 2 * info.eps, noise(new.shape[-1]) / d**0.5, new)
    # Projecting twice leaves rounding of eps; a column that shrinks below this length is
    # orthogonal only to eps over its length.
    while bool((length < 0.1).any()):
        new, r = torch.linalg.qr(_project_out(basis, _project_out(basis, new)))
        length = r.diagonal(dim1=1, dim2=2).abs()[:, None, :]
    span = new if want_leftover else torch.cat([basis, new], dim=-1)
    return new, (span.mT @ original).to("cpu", torch.float64)


def _project_out(basis: Basis, vectors: Basis) -> Basis:
    if basis.shape[-1] == 0:
        return vectors
    return vectors - basis @ (basis.mT @ vectors)


def _grow(
    small: Float[Tensor, "prompt n n"], coefficients: Float[Tensor, "prompt m b"]
) -> Float[Tensor, "prompt m m"]:
    prompts, m, b = coefficients.shape
    n = small.shape[-1]
    grown = torch.zeros(prompts, m, n + b, dtype=small.dtype)
    grown[:, :n, :n] = small
    grown[:, :, n:] = coefficients
    return grown


def _ritz(
    small: Float[Tensor, "prompt n m"], k: int, dtype: torch.dtype
) -> tuple[Tensor, Float[Tensor, "prompt k"], Tensor]:
    """Top-k triples of the small matrix, where Jᵀ left = right · small."""
    values, right = torch.linalg.eigh(small.mT @ small)
    right, s = right.flip(-1)[..., :k], values.flip(-1)[..., :k].clamp_min(0).sqrt()
    # Squaring loses (s_1 / s_k)² of float64's precision, which is used where `dtype` hides that.
    lost = torch.finfo(small.dtype).eps / torch.finfo(dtype).eps
    if bool((s[:, -1] <= lost**0.5 * s[:, 0]).any()):
        u, s, vh = torch.linalg.svd(small, full_matrices=False)
        return vh.mT[..., :k], s[..., :k], u[..., :k]
    return right, s, small @ right / s[:, None, :]
