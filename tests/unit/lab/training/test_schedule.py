"""The learning rate rises straight, and falls along half a cosine."""

import math
from itertools import pairwise

import pytest

from blockcoupling.lab.training.schedule import warmed_cosine


def test_known_values() -> None:
    rates = [warmed_cosine(step, 110, 10, 0.02) for step in range(1, 111)]
    assert rates[:10] == [n / 10 for n in range(1, 11)]
    assert rates[59] == pytest.approx(0.02 + 0.98 / 2)  # half way down
    assert rates[-1] == pytest.approx(0.02)
    assert all(a > b for a, b in pairwise(rates[9:]))
    assert rates[34] == pytest.approx(0.02 + 0.98 * (1 + math.cos(math.pi / 4)) / 2)


def test_without_a_rise_it_falls_from_the_first_update() -> None:
    assert warmed_cosine(1, 2, 0, 0.0) == pytest.approx(0.5)
    assert warmed_cosine(2, 2, 0, 0.0) == pytest.approx(0.0)
