"""Coupling for every K and variant, assembled by hand from the tables."""

import pytest
from scipy import stats

from blockcoupling.statistics.scores import read_scores


def test_correlation_by_k_is_a_regression_on_means(analysed):
    """Assembled by hand from the tables: means over prompts, then over datasets."""
    by_k = analysed.one(kind="correlation_by_k").read()
    tables = analysed.search(kind="coupling").frame()
    scores = read_scores(analysed)
    metric = by_k["metric"].iloc[0]
    value = scores[scores["metric"] == metric].set_index(["model", "checkpoint"])["value"]
    assert set(by_k["k"]) == set(tables["k"])
    assert len(by_k) == tables[["k", "variant"]].drop_duplicates().shape[0]
    for row in by_k.itertuples():
        own = tables[(tables["k"] == row.k) & (tables["variant"] == row.variant)]
        coupling = own.groupby(["model", "checkpoint", "dataset"])["coupling"].mean()
        coupling = coupling.groupby(["model", "checkpoint"]).mean()
        line = stats.linregress(coupling, value.reindex(coupling.index))
        assert row.n == len(coupling)
        assert row.slope == pytest.approx(line.slope)
        assert row.r2 == pytest.approx(line.rvalue**2)
        assert row.r2_low <= row.r2 <= row.r2_high
