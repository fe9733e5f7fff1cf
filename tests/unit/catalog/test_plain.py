"""Text of catalogs: JSON and YAML at once, whatever it contains."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.catalog.plain import as_json, parse, plain
from blockcoupling.errors import UserError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_json_and_yaml_read_the_same_from_it(value):
    text = as_json(value)
    assert "\n" not in text
    assert json.loads(text) == value
    assert yaml.safe_load(text) == value


@pytest.mark.parametrize("value", [1e-05, 1e300, -2.5e-7, 0.1, 5.0])
def test_small_numbers_stay_numbers(value):
    assert yaml.safe_load(as_json({"a": value})) == {"a": value}


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf")])
def test_what_is_no_number_is_no_facet(value):
    with pytest.raises(UserError, match=r"facet rate: .* is not a number to search for"):
        plain("rate", value)


def test_yaml_that_begins_like_json_is_read():
    assert parse("{a: 1, b: [x, y]}", "no") == {"a": 1, "b": ["x", "y"]}
