"""Every predictor against every score, in subsets of a suite of models."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from blockcoupling.errors import UserError
from blockcoupling.statistics.correlate import correlate
from blockcoupling.statistics.predictors import FACTS, MEASURES
from blockcoupling.statistics.regression import relate
from blockcoupling.statistics.subsets import subsets


@pytest.fixture(scope="module")
def suite() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Twelve released models in three families, with every kind of subset among them."""
    random = np.random.default_rng(5)
    n = 12
    size = np.array([0.5e9, 7e9, 13e9, 70e9] * 3)
    score = 40 + 5 * np.log10(size / 1e9) + random.normal(0, 3, n)
    table = pd.DataFrame(
        {
            "model": [f"m{i:02d}" for i in range(n)],
            "checkpoint": "main",
            "family": np.repeat(["llama", "mpt", "falcon"], 4),
            "base": [True, False] * 6,
            "untrained": False,
            "final": True,
            "step": np.nan,
            "parameters": size,
            "log_parameters": np.log10(size),
            "depth": (size / 1e9).round() + 20,
            "dimension": 4096,
            "tokens": random.uniform(1e12, 2e12, n),
        }
    )
    table["log_tokens"] = np.log10(table["tokens"])
    for measure in MEASURES:
        table[measure] = 0.02 * score + random.normal(0, 0.05, n)
    common = {"checkpoint": "main", "higher_is_better": True}
    scores = pd.concat(
        [
            pd.DataFrame({"model": table["model"], "score": name, "metric": "mean", "value": value})
            for name, value in (
                ("leaderboard", score),
                ("arc", score + random.normal(0, 1, n)),
            )
        ]
    ).assign(**common)
    return table, scores


def test_subsets_of_a_suite(suite):
    table, scores = suite
    value = scores.loc[scores["score"] == "leaderboard", "value"].to_numpy()
    found = list(subsets(table.assign(value=value)))
    sizes = {subset.name: int(subset.chosen.sum()) for subset in found}
    assert sizes == {
        "final": 12,
        "under 1B": 3,
        "7B": 3,
        "9B to 20B": 3,
        "over 20B": 3,
        "family falcon": 4,
        "family llama": 4,
        "family mpt": 4,
        "without falcon": 8,
        "without llama": 8,
        "without mpt": 8,
        "base models": 6,
        "fine-tuned models": 6,
        "better half by score": 6,
    }


@pytest.fixture(scope="module")
def correlated(suite) -> pd.DataFrame:
    return correlate(*suite, resamples=50)


def test_rows_equal_what_scipy_finds_on_the_rows_they_name(suite, correlated):
    table, scores = suite
    row = correlated.query(
        "predictor == 'coupling' and score == 'leaderboard' and subset == 'without mpt'"
    ).squeeze()
    chosen = (table["family"] != "mpt").to_numpy()
    value = scores.loc[scores["score"] == "leaderboard", "value"].to_numpy()
    expected = stats.pearsonr(table["coupling"][chosen], value[chosen])
    assert row["pearson"] == pytest.approx(expected.statistic)
    assert row["pearson_p"] == pytest.approx(expected.pvalue)
    assert row["partial_given"] == "log_parameters, depth, log_tokens"  # the dimension is constant
    assert row["partial_n"] == row["n"] == 8
    assert row["pearson_p"] <= row["pearson_p_adjusted"] <= 1


def test_every_predictor_is_compared_and_other_scores_too(correlated):
    final = correlated.query("subset == 'final' and score == 'leaderboard'")
    assert set(final["predictor"]) == {*MEASURES, *FACTS, "arc.mean"}
    # The constant dimension is no comparison.
    assert set(final["comparisons"]) == {len(MEASURES) + len(FACTS)}
    assert final.set_index("predictor")["note"]["dimension"].startswith("constant predictor")
    assert set(final["seed"]) == {0}
    assert set(final["resamples"]) == {50}


def test_a_predictor_is_not_held_fixed_against_itself(correlated):
    found = correlated.query("subset == 'final'").set_index("predictor")
    assert "log_parameters" not in found["partial_given"]["log_parameters"].iloc[0]
    assert "log_tokens" not in found["partial_given"]["tokens"].iloc[0]


def test_order_of_rows_changes_nothing(suite, correlated):
    table, scores = suite
    shuffled = (table.sample(frac=1, random_state=1), scores.sample(frac=1, random_state=2))
    numbers = ["r2", "r2_low", "pearson_p", "partial"]
    key = ["predictor", "score", "subset"]
    one = correlated.set_index(key)[numbers].sort_index()
    other = correlate(*shuffled, resamples=50).set_index(key)[numbers].sort_index()
    # Sums in another order, in float64.
    pd.testing.assert_frame_equal(one, other, rtol=1e-9)


def test_two_values_of_one_score_are_an_error(suite):
    table, scores = suite
    with pytest.raises(UserError, match="m00 main has two values of leaderboard mean"):
        correlate(table, pd.concat([scores, scores.iloc[:1]]))


@pytest.mark.slow
def test_without_scores_there_are_no_rows(suite):
    table, scores = suite
    found = correlate(table, scores.assign(checkpoint="other"))
    assert found.empty
    assert list(found.columns) == list(correlate(table, scores, resamples=10).columns)


def test_families_are_units_where_asked(suite):
    table, scores = suite
    found = correlate(table, scores, resample="family", resamples=20)
    row = found.query("predictor == 'coupling' and score == 'leaderboard' and subset == 'final'")
    row = row.squeeze()
    value = scores.loc[scores["score"] == "leaderboard", "value"].to_numpy()
    expected = relate(table["coupling"], value, table["family"], unit="family", resamples=20)
    assert row["pearson_p"] == expected["pearson_p"]
    assert (row["units"], row["models"], row["resample"]) == (3, 12, "family")
    assert row["note"].startswith("12 points of 3 families only")


def test_models_of_one_family_are_said_to_count_as_independent(correlated):
    final = correlated.query("subset == 'final' and predictor == 'coupling'")
    assert final["note"].str.contains("models of one family count as independent").all()
    alone = correlated.query("subset == 'family mpt' and predictor == 'coupling'")
    assert not alone["note"].str.contains("independent").any()


def test_partial_p_values_are_adjusted_and_coupling_differs_by_nothing_from_itself(correlated):
    final = correlated.query("subset == 'final' and score == 'leaderboard'")
    known = final["partial_p"].notna()
    assert (final["partial_p_adjusted"][known] >= final["partial_p"][known]).all()
    assert (final["partial_low"][known] < final["partial"][known]).all()
    coupling = final.set_index("predictor")["r2_over_coupling"]
    assert np.isnan(coupling["coupling"])
    r2 = final.set_index("predictor")["r2"]
    assert coupling["arc.mean"] == pytest.approx(r2["arc.mean"] - r2["coupling"])
