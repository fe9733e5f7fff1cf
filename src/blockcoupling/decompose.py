"""All blocks of a few prompts: singular triples of every Jacobian, and every pair's A_ij.

Two sweeps over the blocks, so that one block's Jacobian at a time is in memory: the first finds the
triples (U_i, S_i, V_i), the second applies every J_i to all V_j for A_ij = U_jᵀ J_i V_j with the
full J_i. The second sweep's product J_i V_i is independent of the iteration that found V_i, and
gives the residual that is reported.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.linearize import DenseOperator, Operator
from blockcoupling.svd import (
    NotConverged,
    SingularTriples,
    default_block,
    full_svd,
    relative_residual,
    truncated_svd,
)

if TYPE_CHECKING:
    from jaxtyping import Float


Method = Literal["auto", "dense", "krylov"]

# Below this width a whole Jacobian costs less than the first steps of an iteration.
SMALL_DIMENSION = 256
# Random probes for the part of ‖J‖_F that the found triples leave out (matrix-free path).
NORM_PROBES = 16


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


@dataclass
class MethodChooser:
    """Picks dense or matrix-free for a block by what either has been measured to cost.

    A dense Jacobian takes d products in large batches; the iteration takes fewer, in small batches,
    plus K for every block of the second sweep. How many fewer is known from the blocks and prompts
    before; for the first one, 27 K is assumed (what trained models of width 576 to 2048 took).

    Attributes:
        triples: products the iteration took per wanted triple, as last seen.
        slowdown: time of a product in a small batch over one in a large batch, as measured.
    """

    triples: float = 27.0
    slowdown: float | None = None

    def choose(self, operator: Operator, blocks: int, k: int) -> str:
        """Return "dense" or "krylov" for one block."""
        d = operator.dimension
        if d <= SMALL_DIMENSION:
            return "dense"
        iterated, at_once = self.triples * k, blocks * k + NORM_PROBES
        if iterated + at_once >= d:
            return "dense"
        if self.slowdown is None:
            self.slowdown = self._measure(operator)
        return "krylov" if iterated * self.slowdown + at_once < d else "dense"

    @staticmethod
    def _measure(operator: Operator) -> float:
        def seconds(columns: int) -> float:
            u = torch.ones(
                operator.prompts,
                operator.dimension,
                columns,
                dtype=operator.dtype,
                device=operator.device,
            )
            best = float("inf")
            for _ in range(2):
                start = time.perf_counter()
                operator.adjoint(u)
                if operator.device.type != "cpu":
                    torch.accelerator.synchronize(operator.device)
                best = min(best, time.perf_counter() - start)
            return best / columns

        return max(1.0, seconds(default_block(operator)) / seconds(128))


class _Spill:
    """Jacobians on disk between the sweeps: their number does not add to the memory in use."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="blockcoupling-jacobians-")  # noqa: SIM115
        self._places: dict[int, tuple[int, torch.Size, torch.dtype, torch.device]] = {}

    def put(self, block: int, jacobian: Tensor) -> None:
        place = self._file.seek(0, 2)
        jacobian.cpu().numpy().tofile(self._file)
        self._places[block] = (place, jacobian.shape, jacobian.dtype, jacobian.device)

    def get(self, block: int) -> Tensor:
        place, shape, dtype, device = self._places[block]
        jacobian = torch.empty(shape, dtype=dtype)
        self._file.seek(place)
        self._file.readinto(jacobian.numpy().data)
        return jacobian.to(device)

    def __contains__(self, block: int) -> bool:
        return block in self._places

    def close(self) -> None:
        self._file.close()


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
    progress: Callable[[], object] = lambda: None,
) -> Decomposition:
    """Decompose the Jacobians of all blocks for a batch of prompts.

    Args:
        operators: block index (0 …) → operator for all prompts; called once or twice a block.
        blocks: L.
        k: triples to keep.
        method: "dense", "krylov" or "auto", or one of the first two for every block.
        tolerance: of the iteration, see `svd.truncated_svd`; the dense path uses it too.
        swapped: also keep V_jᵀ J_i U_j.
        full: keep all singular values (implies the dense path).
        seed: of the iteration's random start.
        chooser: what "auto" has learned so far, kept between calls.
        progress: called once for every block and sweep.

    Raises:
        MeasurementError: naming the block, when a Jacobian is exactly 0 or −I, not finite, or its
            triples did not reach the tolerance.
    """
    chooser = chooser or MethodChooser()
    # A choice made elsewhere may turn out too dear here; only a request for "krylov" is final.
    chosen_here = method != "krylov"
    spill = _Spill()
    triples: list[SingularTriples] = []
    methods, attention, products, norms, spectra = [], [], [], [], []
    try:
        for block in range(blocks):
            operator = operators(block)
            _refuse_trivial(operator, block)
            how = method if isinstance(method, str) else method[block]
            if full:
                how = "dense"
            elif method == "auto":
                how = chooser.choose(operator, blocks, k)
            operator.products = 0
            if how == "krylov":
                try:
                    found = _krylov(operator, k, tolerance, seed, chosen_here, chooser)
                except NotConverged as error:
                    if not chosen_here:
                        raise MeasurementError(f"block {block + 1}: {error}") from error
                    how = "dense"
                    operator.products = 0
            if how == "dense":
                jacobian = operator.dense()
                found, spectrum = _dense(jacobian, k, tolerance, full, seed)
                spectra.append(spectrum)
                norms.append(jacobian.flatten(1).double().norm(dim=1).cpu())
                spill.put(block, jacobian)
                del jacobian
            triples.append(found)
            methods.append(how)
            attention.append(operator.attention)
            products.append(operator.products)
            if how == "krylov":
                norms.append(torch.zeros(operator.prompts, dtype=torch.float64))
            del operator  # its graph holds the block's weights
            progress()

        U = torch.stack([t.U for t in triples], 1)
        S = torch.stack([t.S for t in triples], 1)
        V = torch.stack([t.V for t in triples], 1)
        prompts, _, d, _ = U.shape
        A = torch.empty(prompts, blocks, blocks, k, k, dtype=U.dtype)
        A_swapped = torch.empty_like(A) if swapped else None
        residual = torch.empty(prompts, blocks, dtype=U.dtype)
        norm_error = torch.zeros(prompts, blocks, dtype=torch.float64)
        for block in range(blocks):
            dense = block in spill
            operator = DenseOperator(spill.get(block)) if dense else operators(block)
            residual[:, block] = _couple(operator, block, V, U, S, A).cpu()
            if A_swapped is not None:
                _couple(operator, block, U, V, S, A_swapped)
            if not dense:
                norms[block], norm_error[:, block] = _hutchpp(operator, triples[block], seed)
                products[block] += operator.products
            del operator
            progress()
    finally:
        spill.close()
    # The products of the two sweeps differ by rounding: allow the residual that much more.
    limit = tolerance + 1e3 * torch.finfo(U.dtype).eps
    for block in range(blocks):
        prompt = int(residual[:, block].argmax())
        worst = float(residual[prompt, block])
        if not worst <= limit:
            raise AtPrompt(
                f"block {block + 1}: the singular triples have residual {worst:.1e} s_1, more "
                f"than the {tolerance:.1e} asked for",
                prompt,
            )
    return Decomposition(
        S=S.cpu(),
        U=U.cpu(),
        V=V.cpu(),
        A=A,
        A_swapped=A_swapped,
        S_full=torch.stack([s for s in spectra if s is not None], 1) if full else None,
        norm=torch.stack(norms, 1),
        norm_error=norm_error,
        residual=residual,
        methods=methods,
        attention=attention,
        products=products,
    )


def _krylov(
    operator: Operator,
    k: int,
    tolerance: float,
    seed: int,
    chosen_here: bool,
    chooser: MethodChooser,
) -> SingularTriples:
    # Where the choice is ours, an iteration dearer than the whole matrix is given up for it.
    limit = operator.dimension if chosen_here else None
    found = truncated_svd(operator, k, tolerance, max_products=limit, seed=seed)
    chooser.triples = max(0.5 * chooser.triples, found.products / k)
    return found


def _dense(
    jacobian: Float[Tensor, "prompt embed embed"], k: int, tolerance: float, full: bool, seed: int
) -> tuple[SingularTriples, Tensor | None]:
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
    out: Float[Tensor, "prompt block block_other k k_other"],
) -> Float[Tensor, " prompt"]:
    """Fill out[:, block] with left_jᵀ J right_j for all j; return the residual at j = block."""
    prompts, blocks, d, k = right.shape
    together = max(1, d // (4 * k))
    residual = torch.zeros(prompts, dtype=right.dtype, device=right.device)
    for start in range(0, blocks, together):
        chosen = slice(start, min(start + together, blocks))
        columns = right[:, chosen].permute(0, 2, 1, 3).reshape(prompts, d, -1)
        pushed = operator.matmat(columns).reshape(prompts, d, -1, k).permute(0, 2, 1, 3)
        out[:, block, chosen] = (left[:, chosen].mT @ pushed).to(out)
        if start <= block < start + together:
            residual = relative_residual(pushed[:, block - start], left[:, block], s[:, block])
    return residual


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
