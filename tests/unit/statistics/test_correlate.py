"""Statistics against SciPy and statsmodels, and what is said where there are none."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from blockcoupling.errors import UserError
from blockcoupling.statistics.correlate import (
    adjust,
    bootstrap_r2,
    correlate,
    is_constant,
    partial_correlation,
    read_scores,
    relate,
    subsets,
    write_statistics,
)
from blockcoupling.statistics.points import FACTS, MEASURES, prompt_values

# R. A. Fisher's iris, first setosa flowers: sepal length, sepal width, petal length.
SEPAL_LENGTH = [5.1, 4.9, 4.7, 4.6, 5.0, 5.4, 4.6, 5.0, 4.4, 4.9]
SEPAL_WIDTH = [3.5, 3.0, 3.2, 3.1, 3.6, 3.9, 3.4, 3.4, 2.9, 3.1]
PETAL_LENGTH = [1.4, 1.4, 1.3, 1.5, 1.4, 1.7, 1.4, 1.5, 1.4, 1.5]


def test_line_and_correlations_are_those_of_least_squares():
    found = relate(SEPAL_LENGTH, SEPAL_WIDTH)
    fit = sm.OLS(SEPAL_WIDTH, sm.add_constant(SEPAL_LENGTH)).fit()
    expected = {
        "intercept": fit.params[0],
        "slope": fit.params[1],
        "r2": fit.rsquared,
        "pearson": stats.pearsonr(SEPAL_LENGTH, SEPAL_WIDTH).statistic,
        "pearson_p": fit.pvalues[1],
        "spearman": stats.spearmanr(SEPAL_LENGTH, SEPAL_WIDTH).statistic,
        "spearman_p": stats.spearmanr(SEPAL_LENGTH, SEPAL_WIDTH).pvalue,
    }
    # Two float64 algorithms for the same ten numbers.
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-10)
    assert (found["n"], found["models"], found["note"]) == (10, 10, "")


def test_known_values():
    # By hand: x̄ = 2.5, ȳ = 2.75, Sxy = 4.5, Sxx = 5, Syy = 4.75; ranks with one tie.
    found = relate([1, 2, 3, 4], [1, 3, 3, 4])
    assert found["slope"] == pytest.approx(0.9)
    assert found["intercept"] == pytest.approx(0.5)
    assert found["r2"] == pytest.approx(4.5**2 / (5 * 4.75))
    assert found["spearman"] == pytest.approx(4.5 / np.sqrt(5 * 4.5))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_partial_correlation_has_the_p_value_of_the_coefficient(seed, covariates):
    random = np.random.default_rng(seed)
    z = random.normal(size=(20, covariates))
    x = z.sum(axis=1) + random.normal(size=20)
    y = x - 2 * z[:, 0] + random.normal(size=20)
    found = partial_correlation(x, y, z)
    fit = sm.OLS(y, sm.add_constant(np.column_stack([x, z]))).fit()
    t = fit.tvalues[1]
    # Another algorithm for the same well-conditioned fit, in float64.
    assert found.p == pytest.approx(fit.pvalues[1], rel=1e-6)
    assert found.r == pytest.approx(t / np.sqrt(t**2 + fit.df_resid), rel=1e-6)
    assert found.freedom == fit.df_resid


def test_redundant_and_constant_covariates_change_nothing():
    once = partial_correlation(SEPAL_LENGTH, SEPAL_WIDTH, np.array(PETAL_LENGTH)[:, None])
    many = np.column_stack([PETAL_LENGTH, np.multiply(2, PETAL_LENGTH), np.ones(10)])
    again = partial_correlation(SEPAL_LENGTH, SEPAL_WIDTH, many)
    assert again.freedom == once.freedom == 7
    assert again.r == pytest.approx(once.r)
    assert again.p == pytest.approx(once.p)


def test_partial_correlation_without_covariates_is_pearson():
    found = partial_correlation(SEPAL_LENGTH, SEPAL_WIDTH, np.empty((10, 0)))
    expected = stats.pearsonr(SEPAL_LENGTH, SEPAL_WIDTH)
    assert (found.r, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_covariates_that_determine_the_predictor_leave_nothing():
    found = partial_correlation(SEPAL_LENGTH, SEPAL_WIDTH, np.multiply(3, SEPAL_LENGTH)[:, None])
    assert np.isnan(found.r)
    assert np.isnan(found.p)


@pytest.mark.parametrize("slope", [2.0, -0.5])
def test_what_is_left_may_lie_on_a_line(slope):
    found = partial_correlation(
        SEPAL_LENGTH, np.multiply(slope, SEPAL_LENGTH), np.array(PETAL_LENGTH)[:, None]
    )
    assert found.r == pytest.approx(np.sign(slope))
    assert found.p == pytest.approx(0, abs=1e-12)
    # Norms of 2 and 2 |slope|, without rounding.
    exact = partial_correlation(
        [-1, 1, -1, 1], np.multiply(slope, [-1, 1, -1, 1]), np.empty((4, 0))
    )
    assert (exact.r, exact.p) == (np.sign(slope), 0)


def test_bootstrap_equals_r2_of_each_resample():
    x, y = np.array(SEPAL_LENGTH), np.array(SEPAL_WIDTH)
    models = np.array(list("aabbccddee"))
    found = bootstrap_r2(x, y, models, resamples=200, seed=3)
    # The same draws, written out: whole models are repeated, then SciPy fits each sample.
    draws = np.random.default_rng(3).multinomial(5, np.full(5, 0.2), 200)
    for r2, counts in zip(found, draws, strict=True):
        chosen = np.repeat(np.arange(10), np.repeat(counts, 2))
        assert r2 == pytest.approx(stats.linregress(x[chosen], y[chosen]).rvalue ** 2, abs=1e-9)


def test_bootstrap_interval_is_that_of_scipy():
    x, y = np.array(SEPAL_LENGTH), np.array(SEPAL_WIDTH)
    found = np.percentile(bootstrap_r2(x, y, np.arange(10), resamples=20_000, seed=0), [2.5, 97.5])
    expected = stats.bootstrap(
        (x, y),
        lambda a, b: stats.pearsonr(a, b).statistic ** 2,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=1,
    ).confidence_interval
    # Other draws: the quantiles of 2,000 resamples scatter by about 0.01 here.
    assert tuple(found) == pytest.approx(tuple(expected), abs=0.04)


def test_bootstrap_is_reproducible_and_marks_undefined_draws():
    same = [bootstrap_r2([0, 0, 1, 1], [1, 2, 3, 4], list("aabb"), seed=7) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    # Both draws are the same model with probability 1/2: x is then constant.
    assert np.isnan(same[0]).mean() == pytest.approx(0.5, abs=0.05)


def test_resampling_models_is_wider_than_resampling_points():
    random = np.random.default_rng(0)
    models = np.repeat(np.arange(8), 12)
    x = random.normal(size=8)[models] + 0.05 * random.normal(size=96)
    y = x + random.normal(size=8)[models] + 0.05 * random.normal(size=96)
    clustered = bootstrap_r2(x, y, models, seed=1)
    pointwise = bootstrap_r2(x, y, np.arange(96), seed=1)
    assert np.nanstd(clustered) > 2 * np.nanstd(pointwise)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_points_have_no_p_value(n):
    found = relate(SEPAL_LENGTH[:n], SEPAL_WIDTH[:n])
    assert all(np.isnan(found[name]) for name in ("pearson_p", "spearman_p", "r2_low", "r2_high"))
    assert found["note"].startswith(f"n = {n}: ")
    assert np.isfinite(found["slope"]) == (n >= 2)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9])
def test_constant_predictor_and_score_are_said(constant):
    about_x = relate(np.full(10, constant), SEPAL_WIDTH)
    about_y = relate(SEPAL_WIDTH, np.full(10, constant))
    assert about_x["note"] == "constant predictor: no correlation, no p-value"
    assert about_y["note"] == "constant score: no correlation, no p-value"
    for found in (about_x, about_y):
        assert np.isnan([found["r2"], found["pearson"], found["pearson_p"]]).all()


def test_rounding_is_no_variation():
    assert is_constant([0.1 + 0.2, 0.3])
    assert not is_constant([0.3, 0.3 + 1e-9])


def test_missing_values_are_left_out_and_counted():
    found = relate([np.nan, *SEPAL_LENGTH], [1.0, *SEPAL_WIDTH])
    assert found["r2"] == pytest.approx(relate(SEPAL_LENGTH, SEPAL_WIDTH)["r2"])
    assert found["note"] == "1 of 11 points lack a value"


def test_points_of_one_model_are_called_dependent():
    note = relate(SEPAL_LENGTH, SEPAL_WIDTH, ["a"] * 5 + ["b"] * 5)["note"]
    assert "10 points of 2 models are not independent" in note
    assert "interval from 2 models only" in note


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from(["holm", "fdr_bh"]))
def test_corrections_are_those_of_statsmodels(p, correction):
    table = pd.DataFrame({"group": "a", "pearson_p": p, "spearman_p": p})
    found = adjust(table, ["group"], correction)
    expected = multipletests(p, method=correction)[1]
    np.testing.assert_allclose(found["pearson_p_adjusted"], expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(found["spearman_p_adjusted"], expected, rtol=1e-12, atol=1e-300)


def test_missing_p_values_are_no_comparisons():
    table = pd.DataFrame({"group": list("aab"), "pearson_p": [0.02, np.nan, 0.02]})
    found = adjust(table.assign(spearman_p=table["pearson_p"]), ["group"])
    assert found["comparisons"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(found["pearson_p_adjusted"], [0.02, np.nan, 0.02])


# ----------------------------------------------------------------------------- a suite of models


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
    found = list(subsets(table.assign(value=value), score_above=[np.sort(value)[-5]]))
    sizes = {subset.name: int(subset.chosen.sum()) for subset in found}
    assert sizes.pop(f"score > {np.sort(value)[-5]:g}") == 4
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


def test_without_scores_there_are_no_rows(suite):
    table, scores = suite
    found = correlate(table, scores.assign(checkpoint="other"))
    assert found.empty
    assert list(found.columns) == list(correlate(table, scores, resamples=10).columns)


# ------------------------------------------------------------------------- through the catalog


def test_statistics_of_a_study_with_checkpoints(study, tmp_path):
    files = write_statistics(study, tmp_path / "correlation.parquet", resamples=200)
    found = pd.read_parquet(files["correlation"]).query("metric == 'loss'")
    coupling = found[found["predictor"] == "coupling"].set_index("subset")
    assert coupling["n"].to_dict() == {
        "all checkpoints": 18,
        "trained": 15,
        "final": 3,
        "checkpoints of neox-64": 6,
        "checkpoints of neox-96": 6,
        "checkpoints of neox-128": 6,
    }
    assert np.isnan(coupling["pearson_p"]["final"])
    assert "n = 3: too few points" in coupling["note"]["final"]
    predictors = pd.read_parquet(files["predictors"])
    assert len(predictors) == 18
    expected = stats.linregress(predictors["coupling"], predictors["heldout.loss"])
    assert coupling["slope"]["all checkpoints"] == pytest.approx(expected.slope)
    assert coupling["pearson_p"]["all checkpoints"] == pytest.approx(expected.pvalue)
    assert set(pd.read_parquet(files["variance"])["measure"]) == set(MEASURES)


def test_only_final_checkpoints_when_asked(study, tmp_path):
    files = write_statistics(study, tmp_path / "c.parquet", checkpoints="final", resamples=10)
    assert set(pd.read_parquet(files["correlation"])["subset"]) == {"final"}


def test_the_score_that_a_study_is_about_is_marked(study, tmp_path):
    options = {"resamples": 10, "checkpoints": "final"}
    files = write_statistics(
        study, tmp_path / "c.parquet", score="heldout", metric="loss", **options
    )
    found = pd.read_parquet(files["correlation"])
    assert (found["headline"] == (found["metric"] == "loss")).all()
    with pytest.raises(UserError, match=r"no score 'arc' .*: heldout accuracy, heldout loss"):
        write_statistics(study, tmp_path / "c.parquet", score="arc", **options)


def test_a_k_that_was_not_reduced_is_named(study):
    with pytest.raises(UserError, match=r"no coupling for K = 7, .* has K = 1, 2, 5, 10, 20, 30"):
        prompt_values(study, k=7)


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
