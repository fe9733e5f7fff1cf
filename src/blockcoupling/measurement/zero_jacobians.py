"""Report which blocks have a Jacobian that is zero: nothing can be compared with them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

logger = logging.getLogger(__name__)


def warn_of_zero_jacobians(places: Iterable[tuple[str, int]]) -> None:
    """Log one line for all Jacobians that are zero.

    Args:
        places: for each, where it is (a prompt and its tokens), and its block, 1 … L.
    """
    by_block: dict[int, list[str]] = {}
    for where, block in places:
        by_block.setdefault(block, []).append(where)
    if by_block:
        named = [
            f"block {block} ({some[0]}{f', and {len(some) - 1} more' if len(some) > 1 else ''})"
            for block, some in sorted(by_block.items())
        ]
        logger.warning(
            "%s: the Jacobian is exactly zero, and the block does not change there either. Its "
            "singular values are 0, its mis-coupling with any other block is undefined (NaN), and "
            "coupling is the mean over the other pairs",
            ", ".join(named),
        )
