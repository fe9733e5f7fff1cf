"""Files of JSON lines: one object per line, read with the place of each, written atomically."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blockcoupling.atomic import replacing
from blockcoupling.errors import UserError
from blockcoupling.wording import lone_surrogate

Row = dict[str, Any]
_SHOWN = 10


def read_rows(path: Path | str) -> tuple[list[tuple[str, Row]], list[str]]:
    """Read the objects of a file, each with its place (`FILE, line N`).

    Returns:
        The objects, and a sentence for each line that cannot be read.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        # Windows programs write a byte-order mark first.
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8: {error}") from error
    rows, broken = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line, object_pairs_hook=_unique_keys)
        except json.JSONDecodeError as error:
            broken.append(f"{place}: not JSON ({error.msg}, column {error.colno})")
        except (ValueError, RecursionError) as error:
            broken.append(f"{place}: not JSON that can be read ({error})")
        else:
            if not isinstance(row, dict):
                broken.append(f"{place}: not a JSON object, {{...}}")
            elif (half := lone_surrogate(text := json.dumps(row, ensure_ascii=False))) is not None:
                broken.append(
                    f"{place}: half of a surrogate pair (\\u{ord(text[half]):04x}), which is not a "
                    "character: write both halves, or remove it"
                )
            else:
                rows.append((place, row))
    return rows, broken


def write_rows(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line; the file appears complete or not at all."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def refuse(problems: list[str]) -> None:
    """Raise the first problems as one message, if there are any.

    Raises:
        UserError: One line per problem.
    """
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UserError("\n".join(problems[:_SHOWN] + more))


def _unique_keys(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is given twice")
    return row
