"""Dense or matrix-free: which method finds a block's singular triples with less work.

The choice depends on counts only (width, products, blocks, prompts, K), never on a clock, free
memory or load: the same study gives the same bits. For the counts, see `work.py`.
"""

from __future__ import annotations

from blockcoupling.jacobian.operator import Operator
from blockcoupling.jacobian.svd import default_block
from blockcoupling.jacobian.work import (
    PRODUCTS_PER_TRIPLE,
    SMALL_DIMENSION,
    dense_work,
    iterated_work,
    work_of_a_product,
)


def choose_method(
    operator: Operator, blocks: int, k: int, per_triple: float = PRODUCTS_PER_TRIPLE
) -> str:
    """Return "dense" or "krylov" for the blocks of a batch of prompts.

    Args:
        operator: of one block.
        blocks: L; the matrix-free second sweep takes K products for each.
        k: triples to keep.
        per_triple: products of the first sweep per triple, as the first block took them.
    """
    if operator.dimension <= SMALL_DIMENSION:
        return "dense"
    dimension, vectors, on_cpu = _step(operator)
    iterated = iterated_work(dimension, blocks, k, vectors, on_cpu, per_triple)
    return "krylov" if iterated < dense_work(operator.dense_products) else "dense"


def affordable_products(operator: Operator) -> int:
    """How many products an iteration may take before a dense Jacobian would have cost less."""
    return round(dense_work(operator.dense_products) / work_of_a_product(*_step(operator)))


def _step(operator: Operator) -> tuple[int, int, bool]:
    """Width, vectors of a step of the iteration, and whether it is on a processor."""
    vectors = operator.prompts * default_block(operator)
    return operator.dimension, vectors, operator.device.type == "cpu"
