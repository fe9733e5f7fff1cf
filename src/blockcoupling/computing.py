"""How this package computes lazy arrays: by threads of its own process.

Dask's configuration (DASK_SCHEDULER, a file) is its user's: it decides about the lazy arrays that
functions return, not about what this package computes by itself.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

Lazy = TypeVar("Lazy")

SCHEDULER: dict[str, Any] = {"scheduler": "threads"}
"""The setting of Dask that says so."""


def by_threads() -> None:
    """Let a whole process compute by threads: for verbs, in which only this package computes.

    To be called before Dask is imported, which then reads it.
    """
    os.environ["DASK_SCHEDULER"] = SCHEDULER["scheduler"]


def computed(lazy: Lazy) -> Lazy:
    """An array or dataset of xarray in memory."""
    return lazy.compute(**SCHEDULER)  # type: ignore[attr-defined]
