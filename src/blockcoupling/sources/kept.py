"""The model that was loaded last, kept for jobs that share a process.

Nothing is kept outside of `keeping_models`, because a model may fill the memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from blockcoupling.sources.records import FACTS, read_record

_Load = TypeVar("_Load", bound=Callable[..., Any])

_KEPT: ContextVar[dict[str, Any] | None] = ContextVar("kept", default=None)
"""The kept model by its request, at most one. None: models are not kept."""


@contextmanager
def keeping_models() -> Iterator[None]:
    """Keep the model that is loaded last, until another is."""
    before = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(before)


def kept(check: Callable[[Mapping[str, Any]], object]) -> Callable[[_Load], _Load]:
    """Decorate a function that loads a record's model, so that it returns the kept one.

    Args:
        check: Called with the record if nothing is loaded; raises if its files have changed.
    """

    def decorate(load: _Load) -> _Load:
        @wraps(load)
        def loaded(
            record: Mapping[str, Any] | Path | str, device: str = "auto", dtype: str | None = None
        ) -> Any:
            how = (device,) if dtype is None else (device, dtype)
            there = _KEPT.get()
            if there is None:
                return load(record, *how)
            if not isinstance(record, Mapping):
                record = read_record(record)
            stored = "float32" if record.get("quantization") else record.get("dtype") or "float32"
            known = {key: value for key, value in record.items() if key not in FACTS}
            asked = json.dumps([load.__name__, known, device, dtype or stored], sort_keys=True)
            if asked in there:
                check(record)
            else:
                there.clear()  # before the next is loaded: both may not fit
                there[asked] = load(record, *how)
            return there[asked]

        return loaded  # type: ignore[return-value]

    return decorate
