"""Numbers as text for sentences and tables, and a check of text that cannot be encoded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

MISSING = "–"


def number(value: float | None, decimals: int = 2) -> str:
    """Write a number with a given number of decimals, a minus sign, and a dash if it is missing."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def significant(value: float | None) -> str:
    """Write a number of any size with three digits."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0 or 0.001 <= abs(value) < 10_000:
        return f"{value:.3g}".replace("-", "−")
    return _power(value, 2).replace("-", "−")


def with_error(value: float | None, error: float | None) -> str:
    """Write a value with its standard error, both to the error's leading digit (two after a 1).

    Without an error the value gets three decimals: the error of a single prompt is unknown, not 0.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if error is None or not math.isfinite(error) or error <= 0:
        return number(value, 3)
    leading = math.floor(math.log10(error))
    decimals = -leading + (1 if error / 10.0**leading < 2 else 0)
    decimals = min(max(decimals, 0), 6)
    return f"{number(value, decimals)} ± {number(error, decimals)}"


def count(value: float | None) -> str:
    """Write a large number with three digits and a unit: 1.70 M, 6.90 B."""
    if value is None or not math.isfinite(value):
        return MISSING
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            digits = 2 - math.floor(math.log10(abs(value) / size))
            return f"{value / size:.{max(0, digits)}f} {unit}"
    return f"{value:.0f}"


def size(count: float) -> str:
    """Write a number of bytes with three digits: 12.3 MB, 1.2 GB (of 1000 MB)."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.3g} {units[0]}"


def duration(seconds: float | None) -> str:
    """Write a time with the two units that matter: 3.2 s, 4 min 05 s, 2 h 30 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def p_value(p: float | None) -> str:
    """Write a p-value with two digits, as a power of ten when it is small."""
    if p is None or not math.isfinite(p):
        return MISSING
    if p >= 0.001:
        return f"{p:.2g}"
    if p < 1e-99:
        return "< 10⁻⁹⁹"
    return _power(p, 1)


def interval(low: float | None, high: float | None) -> str:
    """Write an interval in brackets, or a dash."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    return f"[{number(low)}, {number(high)}]"


def words(name: str) -> str:
    """Write the name of a column, a variant or a score with spaces."""
    return name.replace("_", " ")


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Write rows of cells as lines in columns; `left` of them are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def did_you_mean(word: object, known: Iterable[object], list_all: bool = True) -> str:
    """A hint to append to a message about an unknown word: `; did you mean X?`.

    Args:
        word: What was written.
        known: The words that exist.
        list_all: Whether to list them if none is similar.
    """
    names = sorted(map(str, known))
    near = get_close_matches(str(word), names, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; it can be {', '.join(names)}" if list_all else ""


def lone_surrogate(text: str) -> int | None:
    """Return the position of an unpaired surrogate, which cannot be encoded, if any."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _power(value: float, decimals: int) -> str:
    digits, power = f"{value:.{decimals}e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits}·10{raised}"
