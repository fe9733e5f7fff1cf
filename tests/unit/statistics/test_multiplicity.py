"""Adjusted p-values are those of statsmodels."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from blockcoupling.statistics.multiplicity import adjust


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_are_those_of_statsmodels(p):
    table = pd.DataFrame({"group": "a", "pearson_p": p, "spearman_p": p})
    found = adjust(table, ["group"])
    expected = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(found["pearson_p_adjusted"], expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(found["spearman_p_adjusted"], expected, rtol=1e-12, atol=1e-300)


def test_missing_p_values_are_no_comparisons():
    table = pd.DataFrame({"group": list("aab"), "pearson_p": [0.02, np.nan, 0.02]})
    found = adjust(table.assign(spearman_p=table["pearson_p"]), ["group"])
    assert found["comparisons"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(found["pearson_p_adjusted"], [0.02, np.nan, 0.02])
