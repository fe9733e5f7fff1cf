"""Payloads as JSON: arrays are packed, missing numbers are null."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Packing = Callable[[np.ndarray], dict[str, Any]]

_NOTHING = 65535
"""Code of a missing value in a quantized array."""
_DIGITS = 7


def exact(values: np.ndarray) -> dict[str, Any]:
    """Pack an array as float32."""
    return {"shape": list(values.shape), "f4": _text(values.astype("<f4"))}


def quantized(values: np.ndarray) -> dict[str, Any]:
    """Pack an array as whole multiples of a power of ten, in 16 bits.

    The power is the smallest for which 16 bits hold the range of the values. A value is off by at
    most half of it; where values differ by less than 6.5, that is 0.00005: four decimals are right.

    The lower bytes of all values come first, then the upper ones, which compress well.
    """
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    decimals = 4 if high == low else math.floor(math.log10((_NOTHING - 2) / (high - low)))
    first = math.floor(low * 10.0**decimals)
    codes = np.full(values.shape, _NOTHING, "<u2")
    known = np.isfinite(values)
    codes[known] = np.rint(values[known].astype(np.float64) * 10.0**decimals) - first
    return {
        "shape": list(values.shape),
        "u2": _text(codes.reshape(-1, 1).view(np.uint8).T),
        "first": first,
        "decimals": decimals,
    }


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    """Return the array that was packed, as float64; the page does the same (`packing.js`)."""
    shape = packed["shape"]
    if "f4" in packed:
        return np.frombuffer(base64.b64decode(packed["f4"]), "<f4").reshape(shape).astype(float)
    low, high = np.frombuffer(base64.b64decode(packed["u2"]), np.uint8).reshape(2, *shape)
    codes = low + 256.0 * high
    values = (codes + packed["first"]) / 10.0 ** packed["decimals"]
    return np.where(codes == _NOTHING, np.nan, values)


def as_json(payload: Any, pack: Packing = exact) -> bytes:
    """Return a payload as JSON.

    Args:
        payload: dicts, lists, text and numbers; arrays are packed, the columns of tables are lists.
        pack: how arrays are packed.
    """
    plain = _plain(payload, pack)
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _plain(value: Any, pack: Packing) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each, pack) for key, each in value.items()}
    if isinstance(value, pd.DataFrame):
        return {str(name): _plain(value[name].tolist(), pack) for name in value}
    if isinstance(value, list | tuple):
        return [_plain(each, pack) for each in value]
    if isinstance(value, np.ndarray):
        return pack(value)
    return _scalar(value.item() if isinstance(value, np.generic) else value)


def _scalar(value: Any) -> Any:
    if value is pd.NA:
        return None
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def _text(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
