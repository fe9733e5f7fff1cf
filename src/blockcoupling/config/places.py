"""Which tokens and which blocks a setting can name."""

from collections.abc import Mapping
from numbers import Integral
from typing import Annotated, Any

from pydantic import PlainValidator

from blockcoupling.errors import UserError

# Names of tokens; `class` and `mean` (over all patches) are for images only.
NAMED = ("last", "class", "mean")


def _tokens(value: Any) -> Any:
    if isinstance(value, str) and value in (*NAMED, "all"):
        return value
    if isinstance(value, Mapping) and set(value) == {"every"}:
        if is_whole(value["every"]) and value["every"] > 0:
            return {"every": int(value["every"])}
    elif is_whole(value):
        return [int(value)]
    elif isinstance(value, list | tuple | range) and value and all(map(_one_or_two, value)):
        chosen: Any = value
        return [list(map(_token, each)) if _pair(each) else _token(each) for each in chosen]
    raise ValueError(
        "should be last, all, {every: n}, or a list of tokens t or pairs [t1, t2]; negative ones "
        "count from the end; of images also class and mean"
    )


def _token(value: Any) -> int | str:
    return value if isinstance(value, str) else int(value)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or of NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _pair(value: Any) -> bool:
    def one(token: Any) -> bool:
        return is_whole(token) or (isinstance(token, str) and token in NAMED[:2])

    return isinstance(value, list | tuple) and len(value) == 2 and all(map(one, value))


def _one_or_two(value: Any) -> bool:
    return is_whole(value) or _pair(value) or (isinstance(value, str) and value in NAMED)


def _positions(value: Any) -> Any:
    value = _tokens(value)
    if isinstance(value, list) and any(isinstance(each, list) for each in value):
        raise ValueError("should be positions of tokens, not pairs: all of them are paired")
    return value


def _block_pairs(value: Any) -> Any:
    def is_block(each: Any) -> bool:
        fraction = isinstance(each, float) and 0 < each < 1
        return fraction or (is_whole(each) and each != 0)

    if isinstance(value, list | tuple) and value:
        pairs = [list(pair) if isinstance(pair, list | tuple) else [] for pair in value]
        if all(len(pair) == 2 and all(map(is_block, pair)) for pair in pairs):
            return pairs
    raise ValueError(
        "should be a list of pairs of blocks, such as [[1, 4], [0.5, 0.75]]: numbers from 1, "
        "negative ones from the end, or fractions of the depth"
    )


def _damaged_pairs(value: Any) -> Any:
    if value == "all":
        return value
    if isinstance(value, Mapping) and set(value) == {"within"}:
        if is_whole(value["within"]) and value["within"] > 0:
            return {"within": int(value["within"])}
    elif isinstance(value, list | tuple) and value and all(map(_two_blocks, value)):
        return [[int(block) for block in pair] for pair in value]
    raise ValueError(
        "should be all, {within: n}, or a list of pairs of two different blocks, such as "
        "[[1, 2], [-2, -1]]: numbers from 1, negative ones from the end"
    )


def _two_blocks(value: Any) -> bool:
    return _pair(value) and 0 not in value and value[0] != value[1]


def numbered(pairs: Any, blocks: int) -> list[tuple[int, int]]:
    """The pairs i < j that `all`, {within: n} or a list of pairs mean in a model.

    Args:
        pairs: As a setting of type `DamagedPairs` holds them.
        blocks: L.

    Raises:
        UserError: A block that a model of this depth does not have, or twice the same.
    """
    if isinstance(pairs, list):
        found = {tuple(sorted(block_number(block, blocks) for block in pair)) for pair in pairs}
        if same := next((i for i, j in found if i == j), None):
            raise UserError(f"block {same} is paired with itself: two different blocks make a pair")
        return sorted((i, j) for i, j in found)
    furthest = blocks if pairs == "all" else pairs["within"]
    return [
        (i, j) for i in range(1, blocks + 1) for j in range(i + 1, min(blocks, i + furthest) + 1)
    ]


def block_number(asked: float, blocks: int) -> int:
    """The number of a block, 1 … L.

    Args:
        asked: A number from 1, a negative one from the end, or a fraction of the depth.
        blocks: L.

    Raises:
        UserError: A model of this depth does not have that block.
    """
    fraction = isinstance(asked, float) and 0 < asked < 1
    from_end = blocks + 1 if asked < 0 else 0
    number = max(1, round(asked * blocks)) if fraction else asked + from_end
    if number not in range(1, blocks + 1):
        raise UserError(
            f"block {asked}: this model has blocks 1 … {blocks} (−1 … −{blocks} from the end)"
        )
    return int(number)


Tokens = Annotated[Any, PlainValidator(_tokens)]
"""`last`, `all`, tokens, pairs of them, or {every: n}."""

Positions = Annotated[Any, PlainValidator(_positions)]
"""The same without pairs."""

BlockPairs = Annotated[Any, PlainValidator(_block_pairs)]
"""Pairs of blocks, by number or as fractions of the depth."""

DamagedPairs = Annotated[Any, PlainValidator(_damaged_pairs)]
"""`all`, {within: n} or a list of pairs of different blocks."""
