"""How many vectors pass through a block in one batch."""

from __future__ import annotations

# Up to this many vectors get a graph of their own, with one row for each.
NARROW = 32
# From this width on, a whole Jacobian is accumulated from cut to cut.
CUT_FROM = 256


def rows_at_once(dimension: int, tokens: int) -> int:
    """How many cotangents to pass through a block in one batch.

    Enough for its matrix products to run near their peak rate (a few hundred rows), and few enough
    for the widest intermediates (about 4d per token and cotangent, a handful at a time) to stay
    below the size of a few Jacobians.

    Args:
        dimension: d.
        tokens: how many tokens' states and context carry gradients (1 where the context is
            constant).
    """
    return max(16, min(384, dimension // 2, 400_000_000 // (16 * dimension * tokens)))
