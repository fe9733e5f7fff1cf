"""The work of the singular triples of a block, dense or matrix-free, by counts.

Work is counted in products of the block with one vector, at the rate of large batches. What is
chosen (`method.py`) and what is planned (`study/needs.py`) follow from these counts.
"""

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


def dense_work(products: float) -> float:
    """Work of a Jacobian that takes so many products to accumulate, and of its SVD."""
    return products + DENSE_OVERHEAD


def iterated_work(
    dimension: int,
    blocks: int,
    k: int,
    vectors: int,
    on_cpu: bool,
    per_triple: float = PRODUCTS_PER_TRIPLE,
) -> float:
    """Work of finding K triples by products, second sweep included.

    Args:
        dimension: d.
        blocks: L; the second sweep takes K products for each.
        k: triples to keep.
        vectors: in one step of the iteration, of all prompts.
        on_cpu: whether the block is on a processor.
        per_triple: products of the first sweep per triple.
    """
    second_sweep = SECOND_SWEEP * (blocks * k + NORM_PROBES)
    return per_triple * k * work_of_a_product(dimension, vectors, on_cpu) + second_sweep


def work_of_a_product(dimension: int, vectors: int, on_cpu: bool) -> float:
    """Work of one product of the iteration."""
    call = CPU_CALL if on_cpu else ACCELERATOR_CALL / dimension**2
    return ITERATED + call / vectors
