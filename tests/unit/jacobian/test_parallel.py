"""Parallel work gives the same results in whatever order it is done."""

import threading

import pytest
import torch

from blockcoupling.jacobian.parallel import in_parallel


def test_results_come_in_the_order_of_the_items() -> None:
    later_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert later_is_done.wait(30)
        else:
            later_is_done.set()
        return item

    assert list(in_parallel(work, range(4), 2)) == [0, 1, 2, 3]


def test_the_first_item_that_fails_is_reported() -> None:
    """Of two faults, the one of the earlier item, even where the later one happens first."""
    later_has_failed = threading.Event()

    def work(item: int) -> None:
        if item == 0:
            assert later_has_failed.wait(30)
        later_has_failed.set()
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(in_parallel(work, range(2), 2))


def test_threads_started_later_have_the_callers_setting() -> None:
    def threads_of_a_new_thread() -> int:
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return seen[0]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(in_parallel(lambda _: torch.get_num_threads(), range(3), 2)) == [1, 1, 1]
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == (2, 2)
    finally:
        torch.set_num_threads(before)
