"""Samples of prompts, images and questions, and names that stay unique."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from blockcoupling.errors import UserError

T = TypeVar("T")


def sample(rows: Sequence[T], count: int, seed: int) -> list[T]:
    """Draw `count` of the rows at random; they keep their order."""
    return [rows[n] for n in sorted(random.Random(seed).sample(range(len(rows)), count))]


def sampled(
    rows: Sequence[T], count: int | None, seed: int | None, source: str, unit: str
) -> tuple[list[T], dict[str, int]]:
    """The rows that a dataset's section asks for, and facts about the sample.

    Args:
        rows: All rows of the source.
        count: How many to sample; None: all.
        seed: Seed of the sample; None: 0.
        source: Name of the source, for the message.
        unit: What a row is, such as `prompts`.

    Returns:
        The rows in the order of the source, and `sampled` and `seed` if some were omitted.

    Raises:
        UserError: The source has fewer rows.
    """
    if count is None or count == len(rows):
        return list(rows), {}
    if count > len(rows):
        raise UserError(
            f"{source} has {len(rows)} {unit}, but {count} are requested; lower `prompts`"
        )
    return sample(rows, count, seed or 0), {"sampled": count, "seed": seed or 0}


def unique_names() -> Callable[[str], str]:
    """A function that returns its argument the first time, and then with `~2`, `~3`, … added."""
    seen: set[str] = set()
    counts: Counter[str] = Counter()

    def unique(identity: str) -> str:
        name = identity
        counts[identity] += 1
        while name in seen:
            name = f"{identity}~{counts[identity]}"
            counts[identity] += name in seen
        seen.add(name)
        return name

    return unique
