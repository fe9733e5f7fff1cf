"""All blocks of a few prompts: singular triples of every Jacobian, and every pair's A_ij.

Two sweeps over the blocks, so that few Jacobians at a time are in memory: the first finds the
triples (U_i, S_i, V_i), the second applies every J_i to all V_j for A_ij = U_jᵀ J_i V_j with the
full J_i. The second sweep's product J_i V_i is independent of the iteration that found V_i, and
gives the residual that is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian.linearize import DenseOperator, Operator
from blockcoupling.jacobian.method import NORM_PROBES, SMALL_DIMENSION, Method, MethodChooser
from blockcoupling.jacobian.side_by_side import side_by_side
from blockcoupling.jacobian.spill import Spill
from blockcoupling.jacobian.svd import (
    NotConverged,
    SingularTriples,
    full_svd,
    relative_residual,
    truncated_svd,
)

if TYPE_CHECKING:
    from jaxtyping import Float

# Blocks beside each other, and the largest Jacobians (entries, all prompts) that may be so.
MOST_WORKERS = 4
LARGEST_BESIDE = 2**22


@dataclass(frozen=True)
class Decomposition:
    """What two sweeps over the blocks give, on the CPU.

    Attributes:
        S: (prompt, block, k) singular values.
        U, V: (prompt, block, d, k) singular vectors.
        A: (prompt, block, block_other, k, k_other), A_ij = U_jᵀ J_i V_j.
        A_swapped: the same with V_jᵀ J_i U_j, or None.
        S_full: (prompt, block, d) all singular values, where a full SVD was asked for.
        norm: (prompt, block) ‖J‖_F; exact on the dense path, Hutch++ on the matrix-free one.
        norm_error: (prompt, block) standard error of `norm`, 0 where it is exact.
        residual: (prompt, block) max over k of ‖J v_k − s_k u_k‖ / s_1, independently computed.
        methods: "dense" or "krylov" for every block.
        attention: how every block attended (see `linearize.Operator`).
        matmul_error: (prompt, block) relative error of products of lower precision than float32,
            as measured (see `linearize.Operator`); None where there are none.
        products: matrix-vector products per prompt that gave these numbers, both sweeps, for every
            block; what choosing between the methods took is not among them.
    """

    S: Float[Tensor, "prompt block k"]
    U: Float[Tensor, "prompt block embed k"]
    V: Float[Tensor, "prompt block embed k"]
    A: Float[Tensor, "prompt block block_other k k_other"]
    A_swapped: Float[Tensor, "prompt block block_other k k_other"] | None
    S_full: Float[Tensor, "prompt block embed"] | None
    norm: Float[Tensor, "prompt block"]
    norm_error: Float[Tensor, "prompt block"]
    residual: Float[Tensor, "prompt block"]
    methods: list[str]
    attention: list[str]
    products: list[int]
    matmul_error: Float[Tensor, "prompt block"] | None


@dataclass(frozen=True)
class _Found:
    """What the first sweep finds of one block."""

    triples: SingularTriples
    method: str
    attention: str
    products: int
    norm: Float[Tensor, " prompt"] | None  # the matrix-free path has it from the second sweep
    spectrum: Float[Tensor, "prompt embed"] | None
    matmul_error: Float[Tensor, " prompt"] | None


@dataclass(frozen=True)
class _Applied:
    """What the second sweep finds of one block i: J_i on the singular vectors of every block j."""

    A: Float[Tensor, "prompt block_other k k_other"]
    A_swapped: Float[Tensor, "prompt block_other k k_other"] | None
    residual: Float[Tensor, " prompt"]
    norm: Float[Tensor, " prompt"] | None
    norm_error: Float[Tensor, " prompt"] | None
    products: int


def decompose(
    operators: Callable[[int], Operator],
    blocks: int,
    k: int,
    *,
    method: Method | Sequence[str] = "auto",
    tolerance: float = 1e-4,
    swapped: bool = False,
    full: bool = False,
    seed: int = 0,
    chooser: MethodChooser | None = None,
    workers: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Decomposition:
    """Decompose the Jacobians of all blocks for a batch of prompts.

    Args:
        operators: block index (0 …) → operator for all prompts; called once or twice a block, and
            from several threads at a time where `workers` allows it.
        blocks: L.
        k: triples to keep.
        method: "dense", "krylov" or "auto" (the first block decides for all), or one of the first
            two for every block.
        tolerance: of the iteration, see `svd.truncated_svd`; the dense path uses it too.
        swapped: also keep V_jᵀ J_i U_j.
        full: keep all singular values (implies the dense path).
        seed: of the iteration's random start.
        chooser: what "auto" has learned so far, kept between calls.
        workers: blocks beside each other; None: on a CPU up to four, where Jacobians are small.
        progress: called once for every block and sweep.

    Raises:
        MeasurementError: naming the block, when a Jacobian is exactly 0 or −I, not finite, or its
            triples did not reach the tolerance.
    """
    chooser = chooser or MethodChooser()
    spill = Spill()
    try:
        first = _FirstSweep(operators, k, tolerance, full, seed, method == "krylov", spill)
        begun = {0: operators(0)}
        workers = workers or _workers(begun[0])
        chosen = [method] * blocks if isinstance(method, str) else list(method)
        if full:
            chosen = ["dense"] * blocks

        def sweep(block: int) -> _Found:
            operator = begun.pop(block) if block in begun else operators(block)
            return first.of(block, chosen[block], operator)

        found: list[_Found] = []
        if chosen[0] == "auto":
            operator = begun[0]
            chosen[0] = chooser.choose(operator, blocks, k)
            # Among the others or alone, a block gets the same number of threads: the same bits.
            found = list(side_by_side(sweep, [0], workers))
            chooser.learn(found[0].triples.products / k, found[0].method)
            chosen[1:] = [chooser.choose(operator, blocks, k)] * (blocks - 1)
            del operator  # its graph holds the block's weights
            progress()
        for one in side_by_side(sweep, range(len(found), blocks), workers):
            chooser.learn(one.triples.products / k, one.method)
            found.append(one)
            progress()

        home = found[0].triples.U.device  # where blocks are on several devices, the first one's
        U = torch.stack([f.triples.U.to(home) for f in found], 1)
        S = torch.stack([f.triples.S.to(home) for f in found], 1)
        V = torch.stack([f.triples.V.to(home) for f in found], 1)
        second = _SecondSweep(operators, found, U, S, V, swapped, seed, spill)
        applied = []
        for each in side_by_side(second.of, range(blocks), workers):
            applied.append(each)
            progress()
    finally:
        spill.close()
    residual = torch.stack([a.residual for a in applied], 1)
    matmul_error = _stack([f.matmul_error for f in found])
    _demand_small(residual, tolerance, matmul_error)
    norms = [a.norm if f.norm is None else f.norm for f, a in zip(found, applied, strict=True)]
    exact = torch.zeros(U.shape[0], dtype=torch.float64)
    errors = [exact if a.norm_error is None else a.norm_error for a in applied]
    return Decomposition(
        S=S.cpu(),
        U=U.cpu(),
        V=V.cpu(),
        A=torch.stack([a.A for a in applied], 1),
        A_swapped=_stack([a.A_swapped for a in applied]),
        S_full=_stack([f.spectrum for f in found]),
        norm=torch.stack([n for n in norms if n is not None], 1),
        norm_error=torch.stack(errors, 1),
        residual=residual,
        methods=[f.method for f in found],
        attention=[f.attention for f in found],
        products=[f.products + a.products for f, a in zip(found, applied, strict=True)],
        matmul_error=matmul_error,
    )


def _workers(operator: Operator) -> int:
    """How many blocks to work on beside each other: large products use all threads by themselves.

    Not a matter of the method, so that a choice that is followed again gives the same bits.
    """
    small = operator.prompts * operator.dimension**2 <= LARGEST_BESIDE
    if operator.device.type != "cpu" or not small:
        return 1
    return min(MOST_WORKERS, torch.get_num_threads())


@dataclass(frozen=True)
class _FirstSweep:
    operators: Callable[[int], Operator]
    k: int
    tolerance: float
    full: bool
    seed: int
    asked_for_krylov: bool
    spill: Spill

    def of(self, block: int, method: str, operator: Operator) -> _Found:
        off = None if operator.matmul_error is None else operator.matmul_error.cpu()
        # An operator that is not quite linear has no triples to a better residual than this.
        tolerance = max(self.tolerance, 0.0 if off is None else 2 * float(off.max()))
        if method == "krylov":
            _refuse_trivial(operator, block)
            operator.products = 0
            # Where the choice is ours, an iteration dearer than the whole matrix is given up.
            limit = None if self.asked_for_krylov else round(operator.dense_products)
            try:
                triples = truncated_svd(
                    operator, self.k, tolerance, max_products=limit, seed=self.seed
                )
            except NotConverged as error:
                if self.asked_for_krylov:
                    raise MeasurementError(f"block {block + 1}: {error}") from error
            else:
                attention, products = operator.attention, operator.products
                return _Found(triples, "krylov", attention, products, None, None, off)
        operator.products = 0
        jacobian = operator.dense()
        _refuse_trivial(DenseOperator(jacobian), block)
        triples, spectrum = dense_triples(jacobian, self.k, self.tolerance, self.full, self.seed)
        norm = jacobian.flatten(1).double().norm(dim=1).cpu()
        self.spill.put(block, jacobian)
        attention, products = operator.attention, operator.products
        return _Found(triples, "dense", attention, products, norm, spectrum, off)


@dataclass(frozen=True)
class _SecondSweep:
    operators: Callable[[int], Operator]
    found: Sequence[_Found]
    U: Float[Tensor, "prompt block embed k"]
    S: Float[Tensor, "prompt block k"]
    V: Float[Tensor, "prompt block embed k"]
    swapped: bool
    seed: int
    spill: Spill

    def of(self, block: int) -> _Applied:
        dense = block in self.spill
        operator = DenseOperator(self.spill.get(block)) if dense else self.operators(block)
        right, left, s = (x.to(operator.device) for x in (self.V, self.U, self.S))
        A, residual = _couple(operator, block, right, left, s)
        swapped = _couple(operator, block, left, right, s)[0] if self.swapped else None
        if dense:
            return _Applied(A, swapped, residual, None, None, 0)
        norm, error = _hutchpp(operator, self.found[block].triples, self.seed)
        return _Applied(A, swapped, residual, norm, error, operator.products)


def _stack(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.stack(present, 1) if present else None


def _demand_small(
    residual: Float[Tensor, "prompt block"],
    tolerance: float,
    matmul_error: Float[Tensor, "prompt block"] | None,
) -> None:
    # The products of the two sweeps differ by rounding: allow the residual that much more.
    limit = torch.full_like(residual, tolerance + 1e3 * torch.finfo(residual.dtype).eps)
    if matmul_error is not None:
        limit += 4 * matmul_error
    for block in range(residual.shape[1]):
        prompt = int((residual - limit)[:, block].argmax())
        worst = float(residual[prompt, block])
        if not worst <= limit[prompt, block]:
            raise AtPrompt(
                f"block {block + 1}: the singular triples have residual {worst:.1e} s_1, more "
                f"than the {tolerance:.1e} asked for",
                prompt,
            )


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


def _couple(
    operator: Operator,
    block: int,
    right: Float[Tensor, "prompt block embed k"],
    left: Float[Tensor, "prompt block embed k"],
    s: Float[Tensor, "prompt block k"],
) -> tuple[Float[Tensor, "prompt block_other k k_other"], Float[Tensor, " prompt"]]:
    """left_jᵀ J right_j for all j, and the residual at j = block; on the CPU."""
    prompts, blocks, d, k = right.shape
    together = max(1, d // (4 * k))
    out = torch.empty(prompts, blocks, k, k, dtype=right.dtype)
    residual = torch.zeros(prompts, dtype=right.dtype)
    for start in range(0, blocks, together):
        chosen = slice(start, min(start + together, blocks))
        columns = right[:, chosen].permute(0, 2, 1, 3).reshape(prompts, d, -1)
        pushed = operator.matmat(columns).reshape(prompts, d, -1, k).permute(0, 2, 1, 3)
        out[:, chosen] = (left[:, chosen].mT @ pushed).to(out)
        if start <= block < start + together:
            own = relative_residual(pushed[:, block - start], left[:, block], s[:, block])
            residual = own.cpu()
    return out, residual


def _hutchpp(
    operator: Operator, found: SingularTriples, seed: int
) -> tuple[Float[Tensor, " prompt"], Float[Tensor, " prompt"]]:
    """‖J‖_F and its standard error: the found triples exactly, the rest by random probes.

    ‖J‖_F² = Σ s_k² + E‖J (I − V Vᵀ) ω‖² for Gaussian ω (Hutch++, Meyer et al. 2021).
    """
    generator = torch.Generator().manual_seed(seed + 1)
    # The same for every prompt: what else is in the batch changes no prompt's numbers.
    probes = torch.randn(operator.dimension, NORM_PROBES, generator=generator, dtype=torch.float64)
    probes = probes.to(operator.device, operator.dtype)
    probes = probes - found.V @ (found.V.mT @ probes)
    squares = operator.matmat(probes).double().square().sum(dim=1)
    total = found.S.double().square().sum(dim=1) + squares.mean(dim=1)
    norm = total.sqrt()
    error = squares.std(dim=1) / NORM_PROBES**0.5 / (2 * norm)
    return norm.cpu(), error.cpu()


def _refuse_trivial(operator: Operator, block: int) -> None:
    """Refuse a Jacobian that is exactly 0 or −I, or not finite, seen on one random vector.

    A kernel without a gradient (a repacked quantized layer, say) lets only the skip connection
    through: the block's Jacobian is then exactly the identity, and the residual one exactly 0.
    """
    generator = torch.Generator().manual_seed(block)
    probe = torch.randn(operator.prompts, operator.dimension, 1, generator=generator)
    probe = probe.to(operator.device, operator.dtype)
    pulled = operator.adjoint(probe)
    for prompt in range(operator.prompts):
        p, q = probe[prompt], pulled[prompt]
        if not bool(torch.isfinite(q).all()):
            problem = "is not finite"
        elif not bool(q.any()):
            problem = "is exactly 0 (does a kernel without a gradient stand in the way?)"
        elif torch.equal(q, -p):
            problem = "is exactly −I (the block's output does not depend on its input)"
        else:
            continue
        raise AtPrompt(f"block {block + 1}: the residual Jacobian {problem}", prompt)


class AtPrompt(MeasurementError):
    """A fault of one prompt of a batch; `prompt` is its place in the batch."""

    def __init__(self, message: str, prompt: int) -> None:
        super().__init__(message)
        self.prompt = prompt
