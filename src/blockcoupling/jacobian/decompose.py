"""All blocks of a few prompts: singular triples of every Jacobian, and every pair's A_ij.

There are two sweeps over the blocks, so that few Jacobians are in memory at a time: the first finds
the triples (U_i, S_i, V_i), the second applies every full J_i to all V_j for A_ij = U_jᵀ J_i V_j.
The second sweep's product J_i V_i is independent of the iteration that found V_i and gives the
reported residual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.config.choices import Method
from blockcoupling.jacobian.cumulative import Cumulative
from blockcoupling.jacobian.cumulative import cumulative as cumulative_of
from blockcoupling.jacobian.degenerate import AtPrompt
from blockcoupling.jacobian.first_sweep import FirstSweep, Found
from blockcoupling.jacobian.method import choose_method
from blockcoupling.jacobian.operator import Operator
from blockcoupling.jacobian.overlaps import overlaps as overlaps_of
from blockcoupling.jacobian.parallel import in_parallel
from blockcoupling.jacobian.second_sweep import SecondSweep
from blockcoupling.jacobian.spill import Spill
from blockcoupling.jacobian.work import PRODUCTS_PER_TRIPLE

if TYPE_CHECKING:
    from jaxtyping import Complex, Float

# At most this many blocks in parallel, with Jacobians of at most this many entries (all prompts).
MOST_WORKERS = 4
LARGEST_IN_PARALLEL = 2**22


@dataclass(frozen=True)
class Decomposition:
    """The results of both sweeps, on the CPU.

    Attributes:
        S: (prompt, block, k) singular values.
        U, V: (prompt, block, d, k) singular vectors.
        A: (prompt, block, block_other, k, k_other), A_ij = U_jᵀ J_i V_j.
        A_swapped: the same with V_jᵀ J_i U_j, or None.
        overlaps: (prompt, block, block_other, k, k_other) each, by name (see `OVERLAPS`), or None.
        S_full: (prompt, block, d) all singular values if a full SVD was requested.
        eigenvalues: (prompt, block, d) all eigenvalues, or None.
        cumulative: of the cumulative Jacobian, or None.
        norm: (prompt, block) ‖J‖_F; exact on the dense path, Hutch++ on the matrix-free one.
        norm_error: (prompt, block) standard error of `norm`, 0 where it is exact.
        residual: (prompt, block) max over k of ‖J v_k − s_k u_k‖ / s_1, independently computed.
        methods: "dense" or "krylov" for every block.
        attention: how every block attended (see `operator.Operator`).
        matmul_error: (prompt, block) measured relative error of products of lower precision than
            float32 (see `operator.Operator`); None without such products.
        products: matrix-vector products per prompt of both sweeps, for every block, without those
            of an iteration that was given up.
    """

    S: Float[Tensor, "prompt block k"]
    U: Float[Tensor, "prompt block embed k"]
    V: Float[Tensor, "prompt block embed k"]
    A: Float[Tensor, "prompt block block_other k k_other"]
    A_swapped: Float[Tensor, "prompt block block_other k k_other"] | None
    overlaps: Mapping[str, Float[Tensor, "prompt block block_other k k_other"]] | None
    S_full: Float[Tensor, "prompt block embed"] | None
    eigenvalues: Complex[Tensor, "prompt block embed"] | None
    cumulative: Cumulative | None
    norm: Float[Tensor, "prompt block"]
    norm_error: Float[Tensor, "prompt block"]
    residual: Float[Tensor, "prompt block"]
    methods: list[str]
    attention: list[str]
    products: list[int]
    matmul_error: Float[Tensor, "prompt block"] | None


def decompose(
    operators: Callable[[int], Operator],
    blocks: int,
    k: int,
    *,
    method: Method | Sequence[str] = "auto",
    tolerance: float = 1e-4,
    swapped: bool = False,
    overlaps: bool = False,
    full: bool = False,
    eigenvalues: bool = False,
    cumulative: bool = False,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Decomposition:
    """Decompose the Jacobians of all blocks for a batch of prompts.

    Args:
        operators: block index (0 …) → operator for all prompts; called once or twice a block, and
            from several threads if there are several workers.
        blocks: L.
        k: triples to keep.
        method: "dense", "krylov" or "auto" (see `choose_method`; the first block decides for all),
            or a list with one of the first two for every block.
        tolerance: of the iteration, see `svd.truncated_svd`; the dense path uses it too.
        swapped: also keep V_jᵀ J_i U_j.
        overlaps: also keep U_iᵀ U_j, V_iᵀ V_j and V_iᵀ U_j.
        full: keep all singular values (implies the dense path).
        eigenvalues: keep all eigenvalues (implies it, too).
        cumulative: decompose the products of I + J (implies it, too).
        seed: of the random start vectors.
        workers: blocks in parallel; None: up to four on a CPU, if Jacobians are small.
        progress: called once for every block and sweep.

    Raises:
        MeasurementError: a Jacobian is exactly 0 or −I, is not finite, or its triples did not
            reach the tolerance; the message names the block.
    """
    spill = Spill()
    try:
        first = FirstSweep(k, tolerance, full, seed, method == "krylov", spill, eigenvalues)
        begun = {0: operators(0)}
        workers = workers or _workers(begun[0])
        chosen = [method] * blocks if isinstance(method, str) else list(method)
        if full or eigenvalues or cumulative:
            chosen = ["dense"] * blocks

        def sweep(block: int) -> Found:
            operator = begun.pop(block) if block in begun else operators(block)
            return first.of(block, chosen[block], operator)

        found: list[Found] = []
        if chosen[0] == "auto":
            operator = begun[0]
            chosen[0] = choose_method(operator, blocks, k)
            # Alone or among others, a block gets the same number of threads, for the same bits.
            found = list(in_parallel(sweep, [0], workers))
            took = found[0].triples.products / k if found[0].method == "krylov" else 0
            seen = took or PRODUCTS_PER_TRIPLE  # a Jacobian of 0 takes none at all
            chosen[1:] = [choose_method(operator, blocks, k, seen)] * (blocks - 1)
            del operator  # its graph holds the block's weights
            progress()
        for one in in_parallel(sweep, range(len(found), blocks), workers):
            found.append(one)
            progress()

        home = found[0].triples.U.device  # where blocks are on several devices, the first one's
        U = torch.stack([f.triples.U.to(home) for f in found], 1)
        S = torch.stack([f.triples.S.to(home) for f in found], 1)
        V = torch.stack([f.triples.V.to(home) for f in found], 1)
        second = SecondSweep(operators, found, U, S, V, swapped, seed, spill)
        applied = []
        for each in in_parallel(second.of, range(blocks), workers):
            applied.append(each)
            progress()
        product = cumulative_of(spill.get, U, V, tolerance, seed) if cumulative else None
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
        overlaps=overlaps_of(U, V) if overlaps else None,
        S_full=_stack([f.spectrum for f in found]),
        eigenvalues=_stack([f.eigenvalues for f in found]),
        cumulative=product,
        norm=torch.stack([n for n in norms if n is not None], 1),
        norm_error=torch.stack(errors, 1),
        residual=residual,
        methods=[f.method for f in found],
        attention=[f.attention for f in found],
        products=[f.products + a.products for f, a in zip(found, applied, strict=True)],
        matmul_error=matmul_error,
    )


def _workers(operator: Operator) -> int:
    """How many blocks to process in parallel: large products use all threads by themselves.

    This does not depend on the method, so that a resumed job gives the same bits.
    """
    small = operator.prompts * operator.dimension**2 <= LARGEST_IN_PARALLEL
    if operator.device.type != "cpu" or not small:
        return 1
    return min(MOST_WORKERS, torch.get_num_threads())


def _stack(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.stack(present, 1) if present else None


def _demand_small(
    residual: Float[Tensor, "prompt block"],
    tolerance: float,
    matmul_error: Float[Tensor, "prompt block"] | None,
) -> None:
    # The products of the two sweeps differ by rounding, so the residual may be that much larger.
    limit = torch.full_like(residual, tolerance + 1e3 * torch.finfo(residual.dtype).eps)
    if matmul_error is not None:
        limit += 4 * matmul_error
    for block in range(residual.shape[1]):
        prompt = int((residual - limit)[:, block].argmax())
        worst = float(residual[prompt, block])
        if not worst <= limit[prompt, block]:
            raise AtPrompt(
                f"block {block + 1}: the singular triples have residual {worst:.1e} s_1, above "
                f"the tolerance of {tolerance:.1e}",
                prompt,
            )
