"""How many prompts a kernel of a reduction gets at once.

Dask takes as long over a chunk of small matrices as reading them does: several prompts make one.
The same on every engine, however many workers it has.
"""

BATCH = 32
"""Prompts that are reduced together."""
MOST_PROMPTS, MOST_BYTES = 4, 48_000_000
"""Most prompts of a batch in a chunk, and most bytes of A in a chunk."""


def prompts_of_a_chunk(each: float) -> int:
    """A power of two, so that chunks fill a batch.

    Args:
        each: bytes of A of one prompt and pair of tokens.
    """
    fitting = [n for n in (2**power for power in range(8)) if n * each <= MOST_BYTES]
    return min(max(fitting, default=1), MOST_PROMPTS, BATCH)


def most_bytes_of_a_chunk(each: float) -> float:
    """A bound on A in a chunk that never falls as `each` grows, as whole prompts of it may.

    Args:
        each: bytes of A of one prompt and pair of tokens.
    """
    return max(each, min(MOST_PROMPTS * each, MOST_BYTES))
