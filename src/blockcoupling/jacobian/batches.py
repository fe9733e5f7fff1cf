"""How many vectors go through a block together."""

from __future__ import annotations

# Up to so many vectors at a time get a graph of their own, with one row for each.
NARROW = 32
# From this width on, a whole Jacobian is accumulated from cut to cut.
CUT_FROM = 256


def rows_at_once(dimension: int, tokens: int) -> int:
    """How many cotangents to send through a block together.

    Enough that its matrix products run near their peak rate (a few hundred rows), few enough that
    the widest intermediates (about 4d per token and cotangent, a handful alive) stay below the
    size of some Jacobians.

    Args:
        dimension: d.
        tokens: how many tokens' states and context carry gradients (1 where the context is
            constant).
    """
    return max(16, min(384, dimension // 2, 400_000_000 // (16 * dimension * tokens)))
