"""Arrays and numbers in payloads: what the page reads is what was packed."""

import json

import numpy as np
import pandas as pd
import pytest

from blockcoupling.explore.packing import as_json, exact, quantized, unpacked


@pytest.mark.parametrize("spread", [0.0, 1e-6, 0.03, 1.2, 6.5, 40.0, 3e5, 1e7])
def test_quantized_values_are_multiples_of_a_power_of_ten(spread):
    values = np.random.default_rng(0).uniform(-spread / 3, spread, (3, 4, 5))
    values[0, 0, 0] = np.nan
    found = unpacked(json.loads(json.dumps(quantized(values))))
    # Half a unit, and one rounding of float64.
    unit = 10.0 ** -quantized(values)["decimals"]
    assert np.nanmax(abs(found - values)) <= unit / 2 * (1 + 1e-9)
    assert np.array_equal(np.isnan(found), np.isnan(values))
    if 0 < spread <= 4:  # the spread of mis-coupling: four decimals are those of the table
        assert unit <= 1e-4


def test_four_decimals_of_mis_coupling_are_exact():
    values = np.random.default_rng(1).uniform(0, 1.6, 5000)
    found = unpacked(quantized(values))
    assert np.array_equal(np.round(found, 4), np.round(values, 4))


def test_exact_values_are_float32():
    values = np.random.default_rng(2).normal(size=(2, 7))
    assert np.array_equal(unpacked(exact(values)), values.astype(np.float32).astype(float))


def test_json_has_no_nan_and_keeps_seven_digits():
    table = pd.DataFrame({"a": [1.23456789, np.nan], "b": ["x", None], "n": [1, 2]})
    found = json.loads(
        as_json({"t": table, "empty": np.zeros((0, 2)), "none": pd.NA, "i": np.int64(3)})
    )
    assert found["t"] == {"a": [1.234568, None], "b": ["x", None], "n": [1, 2]}
    assert (found["none"], found["i"]) == (None, 3)
    assert unpacked(found["empty"]).shape == (0, 2)
