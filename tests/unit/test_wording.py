"""Numbers as text: signs, digits, units, and dashes where there is nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.wording import (
    aligned,
    count,
    interval,
    lone_surrogate,
    number,
    p_value,
    significant,
    size,
    with_error,
)

NOTHING = [None, math.nan, math.inf]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (12_345_678, "12.3 MB"),
        (1.2e9, "1.2 GB"),
        (3e15, "3e+03 TB"),
    ],
)
def test_bytes_have_three_digits_and_a_unit(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-0.72345, 0.0042, "−0.723 ± 0.004"),
        (1.87123, 0.0134, "1.871 ± 0.013"),
        (12.3, 2.2, "12 ± 2"),
        (1234.5, 34.0, "1234 ± 34"),
        (0.5, 0.0, "0.500"),
        (0.5, math.nan, "0.500"),
        (math.nan, 0.1, "–"),
        (None, None, "–"),
    ],
)
def test_value_with_error(value, error, text):
    assert with_error(value, error) == text


@given(st.floats(-1e3, 1e3), st.floats(1e-5, 1e2))
def test_rounding_loses_less_than_the_error(value, error):
    shown, uncertainty = (
        float(part.replace("−", "-")) for part in with_error(value, error).split(" ± ")
    )
    # Half a unit of the error's leading digit is at most half of the error.
    assert abs(shown - value) <= 0.5 * error * (1 + 1e-9)
    assert uncertainty == pytest.approx(error, rel=0.5)


def test_minus_zero_is_zero():
    assert number(-0.0001) == "0.00"
    assert number(-0.5, 1) == "−0.5"


@pytest.mark.parametrize(
    ("value", "text"),
    [(12, "12"), (1500, "1.50 k"), (70e6, "70.0 M"), (6.9e9, "6.90 B"), (1.5e13, "15.0 T")],
)
def test_counts_have_units(value, text):
    assert count(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.5, "0.5"), (0.0123, "0.012"), (9.99e-10, "1.0·10⁻⁹"), (4e-5, "4.0·10⁻⁵"), (0, "< 10⁻⁹⁹")],
)
def test_p_values(p, text):
    assert p_value(p) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-0.5, "−0.5"), (0, "0"), (1.234e-9, "1.23·10⁻⁹"), (-5e7, "−5.00·10⁷")]
)
def test_significant_digits(value, text):
    assert significant(value) == text


@pytest.mark.parametrize("nothing", NOTHING)
def test_what_is_missing_is_a_dash(nothing):
    assert number(nothing) == count(nothing) == p_value(nothing) == significant(nothing) == "–"
    assert interval(nothing, 1.0) == interval(0.5, nothing) == "–"


def test_interval():
    assert interval(-0.1, 0.956) == "[−0.10, 0.96]"


@pytest.mark.parametrize(
    ("text", "place"),
    [("", None), ("née 🎈", None), ("\ud800", 0), ("ab\udfff", 2), ("\ud83c\udf88", 0)],
)
def test_half_of_a_surrogate_pair_is_found(text: str, place: int | None) -> None:
    assert lone_surrogate(text) == place


def test_cells_are_aligned_in_columns():
    rows = [("step", "n"), ("extract", "12"), ("a", "")]
    assert aligned(rows) == ["step      n", "extract  12", "a"]
    assert aligned(rows, left=2) == ["step     n", "extract  12", "a"]
