"""Batch sizes follow from what a prompt takes."""

from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.config.measurement import Settings
from blockcoupling.measurement.memory import (
    bytes_per_prompt,
    free_bytes,
    products_kept,
    prompts_within,
)


def test_bytes_of_a_prompt_written_out() -> None:
    # d = 10, L = 2, K = 3, T = 5: 4·5·10·2 + 4·10·3·2 + (2·3)² + 3·10² + 2·5·10·3 numbers.
    assert bytes_per_prompt(10, 2, 3, 5) == 4 * (400 + 240 + 36 + 300 + 300)


def test_every_product_counts() -> None:
    assert bytes_per_prompt(10, 2, 3, 5, kept=4) - bytes_per_prompt(10, 2, 3, 5) == 4 * 3 * 36
    kept = {name: products_kept(Settings.of({name: True})) for name in ("swapped", "overlaps")}
    assert kept == {"swapped": 2, "overlaps": 4}


def test_every_pair_of_tokens_counts() -> None:
    one, two = (bytes_per_prompt(10, 2, 3, 5, pairs=n) for n in (1, 2))
    assert two - one == 4 * (400 + 240 + 36 + 300)


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_a_batch_is_as_large_as_it_may_be(size: int, per_prompt: int) -> None:
    batch = prompts_within(size, per_prompt)
    assert 1 <= batch <= 16
    assert batch == 1 or batch * per_prompt <= size
    assert batch == 16 or (batch + 1) * per_prompt > size


def test_free_memory_is_some_of_the_machine() -> None:
    import psutil

    assert 0 < free_bytes() <= psutil.virtual_memory().total
