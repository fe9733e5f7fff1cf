"""Dense or matrix-free: which method finds a block's singular triples with less work.

The choice depends on counts only (width, products, blocks, prompts, K), never on a clock, free
memory or load: the same study gives the same bits. Work is counted in products of the block with
one vector, at the rate of large batches.
"""

from __future__ import annotations

from blockcoupling.jacobian.operator import Operator
from blockcoupling.jacobian.svd import default_block

# Below this width a whole Jacobian costs less than the first steps of an iteration.
SMALL_DIMENSION = 256
# Random probes of the second sweep (see `decompose`).
NORM_PROBES = 16
# First-sweep products per wanted triple, until a block has been measured: what trained models of
# width 576 to 2048 took.
PRODUCTS_PER_TRIPLE = 27.0

# The constants below reproduce the seconds that docs/benchmarks.md and docs/gpu.md list (d = 768
# and 2048 on two threads; d = 4096 and 8192 on an H200) within a third.
# A dense Jacobian's own arrays and its SVD on top of the products that accumulate it (d = 576,
# eight prompts, one thread: 2.0 s of a processor a prompt dense, 3.4 s matrix-free).
DENSE_OVERHEAD = 450.0
# A product of an iteration in a wide batch: with its orthogonalization, and differentiated twice.
ITERATED = 2.0
# A call of the block costs this much more, however few vectors it takes: reading the weights on a
# CPU; on an accelerator, launching kernels (divided by d², as a product grows with d²).
CPU_CALL = 55.0
ACCELERATOR_CALL = 1e10
# A product of the second sweep, in its wide batches.
SECOND_SWEEP = 1.2


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
    second_sweep = SECOND_SWEEP * (blocks * k + NORM_PROBES)
    iterated = per_triple * k * _iterated(operator) + second_sweep
    return "krylov" if iterated < _dense(operator) else "dense"


def affordable_products(operator: Operator) -> int:
    """How many products an iteration may take before a dense Jacobian would have cost less."""
    return round(_dense(operator) / _iterated(operator))


def _dense(operator: Operator) -> float:
    return operator.dense_products + DENSE_OVERHEAD


def _iterated(operator: Operator) -> float:
    """Work of one product of the iteration."""
    vectors = operator.prompts * default_block(operator)
    on_cpu = operator.device.type == "cpu"
    call = CPU_CALL if on_cpu else ACCELERATOR_CALL / operator.dimension**2
    return ITERATED + call / vectors
