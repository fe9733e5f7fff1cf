"""Calling a function for several items at a time, each with its share of the processor's threads.

Small operations do not get faster with a second thread: two blocks beside each other with one
thread each are done sooner than one after the other with two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Results of `work(item)` in the order of the items, which are begun in that order.

    Args:
        work: is called from other threads, where there are several workers.
        items: what to call it with.
        workers: how many items at a time.

    Raises:
        Exception: what `work` raised for the first item that failed; items that were not begun
            by then are left.
    """
    if workers == 1:
        yield from map(work, items)
        return
    share = max(1, torch.get_num_threads() // workers)
    # A thread's own setting: the caller's stays as it is.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
