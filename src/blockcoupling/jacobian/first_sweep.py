"""The first sweep over the blocks: every block's singular triples (U_i, S_i, V_i)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian.degenerate import zero_prompts
from blockcoupling.jacobian.dense_svd import dense_triples
from blockcoupling.jacobian.eigenvalues import eigenvalues
from blockcoupling.jacobian.method import affordable_products
from blockcoupling.jacobian.operator import DenseOperator, Operator, SomeOperator
from blockcoupling.jacobian.spill import Spill
from blockcoupling.jacobian.svd import NotConverged, SingularTriples, truncated_svd
from blockcoupling.jacobian.zero_triples import with_zeros

if TYPE_CHECKING:
    from jaxtyping import Complex, Float


@dataclass(frozen=True)
class Found:
    """The results of the first sweep for one block."""

    triples: SingularTriples
    method: str
    attention: str
    products: int
    norm: Float[Tensor, " prompt"] | None  # None if matrix-free: see the second sweep
    spectrum: Float[Tensor, "prompt embed"] | None
    eigenvalues: Complex[Tensor, "prompt embed"] | None
    matmul_error: Float[Tensor, " prompt"] | None


@dataclass(frozen=True)
class FirstSweep:
    """Finds the triples of each block, dense or matrix-free.

    Attributes:
        k: triples to keep.
        tolerance: residual at which an iteration may stop.
        full: also find all singular values.
        seed: of the random start vectors.
        asked_for_krylov: whether an iteration that does not converge is an error; otherwise the
            dense method replaces it.
        spill: keeps whole Jacobians for the second sweep.
        eigenvalues: also find all eigenvalues of whole Jacobians.
    """

    k: int
    tolerance: float
    full: bool
    seed: int
    asked_for_krylov: bool
    spill: Spill
    eigenvalues: bool = False

    def of(self, block: int, method: str, operator: Operator) -> Found:
        """The triples of one block.

        Args:
            block: its index (0 …).
            method: "dense" or "krylov".
            operator: its operator.

        Raises:
            MeasurementError: the message names the block.
        """
        off = None if operator.matmul_error is None else operator.matmul_error.cpu()
        # An operator that is not exactly linear has no triples with a smaller residual.
        tolerance = max(self.tolerance, 0.0 if off is None else 2 * float(off.max()))
        if method == "krylov":
            zero = zero_prompts(operator, block)
            operator.products = 0
            # If `auto` chose, an iteration that costs more than the dense method is given up.
            limit = None if self.asked_for_krylov else affordable_products(operator)
            try:
                triples = with_zeros(
                    zero,
                    lambda some: truncated_svd(
                        operator if some is None else SomeOperator(operator, some),
                        self.k,
                        tolerance,
                        max_products=limit,
                        seed=self.seed,
                    ),
                    torch.empty(0, operator.dimension, self.k).to(operator.device, operator.dtype),
                )
            except NotConverged as error:
                if self.asked_for_krylov:
                    raise MeasurementError(f"block {block + 1}: {error}") from error
            else:
                attention, products = operator.attention, operator.products
                return Found(triples, "krylov", attention, products, None, None, None, off)
        operator.products = 0
        jacobian = operator.dense()
        zero_prompts(DenseOperator(jacobian), block, operator)
        triples, spectrum = dense_triples(jacobian, self.k, self.tolerance, self.full, self.seed)
        norm = jacobian.flatten(1).double().norm(dim=1).cpu()
        values = eigenvalues(jacobian) if self.eigenvalues else None
        self.spill.put(block, jacobian)
        attention, products = operator.attention, operator.products
        return Found(triples, "dense", attention, products, norm, spectrum, values, off)
