"""The path of the residual stream through a model with changed blocks, and its cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from blockcoupling.config.damage import Change

MOST_TOGETHER = 8
"""Texts per batch, at most."""
MOST_NUMBERS = 2**26
"""Logits of a batch of texts, at most."""


@dataclass(frozen=True)
class Course:
    """The way of the residual stream under a change; indices from 0.

    Attributes:
        start: block whose input, in the model as it is, it starts from.
        places: where it goes through a block, in order.
        sources: by place, the blocks whose weights (their mean) are used there; else its own.
    """

    start: int
    places: Sequence[int]
    sources: Mapping[int, tuple[int, ...]]


def course(change: Change, blocks: int) -> Course:
    """The path under one change, in a model of `blocks` blocks."""
    i, j = change.block - 1, change.block_other - 1
    match change.treatment:
        case "skip":
            places = [place for place in range(min(i, j), blocks) if place not in (i, j)]
            return Course(min(i, j), places, {})
        case "exit":  # the input of the block after it is its output
            return Course(i + 1, [], {})
        case "displace" | "displace_random":
            return Course(i, range(i, blocks), {})
        case "replace":
            sources: Mapping[int, tuple[int, ...]] = {j: (i,)}
        case "swap":
            sources = {i: (j,), j: (i,)}
        case "merge":
            sources = {i: (i, j), j: (i, j)}
    start = min(sources)
    return Course(start, range(start, blocks), sources)


def passes(changes: Iterable[Change], blocks: int) -> tuple[int, int]:
    """How often a text goes through a block, and through the head, for some changes."""
    ways = [course(change, blocks) for change in changes]
    return blocks + sum(len(way.places) for way in ways), 1 + len(ways)
