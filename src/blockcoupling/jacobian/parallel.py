"""Call a function for several items at a time, each with its share of the processor's threads.

A second thread does not speed up small operations: two blocks in parallel, with one thread each,
are done sooner than one after the other with two.
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
    """Yield the results of `work(item)` in the order of the items, whichever is done first.

    Args:
        work: called from other threads if there are several workers.
        items: what to call it with; calls start in this order.
        workers: how many items at a time.

    Raises:
        Exception: what `work` raised for the first item that failed; items not started by then
            are skipped.
    """
    if workers == 1:
        yield from map(work, items)
        return
    threads = torch.get_num_threads()
    share = max(1, threads // workers)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        # The last setting holds for every thread that is started later: without this, what ran
        # before would decide how many threads, and so in which order, later work sums.
        torch.set_num_threads(threads)
