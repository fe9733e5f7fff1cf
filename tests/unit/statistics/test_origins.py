"""One model under several names counts once: in n, p-values, intervals and components."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from blockcoupling.statistics.correlate import correlate
from blockcoupling.statistics.origins import merge_copies, of_one_origin, origins
from blockcoupling.statistics.predictors import FACTS, MEASURES
from blockcoupling.statistics.regression import relate
from blockcoupling.statistics.variance import components


def weights(digest: str) -> dict:
    return {"weights": digest, "config": "c"}


def found(*records: dict) -> pd.DataFrame:
    table = pd.DataFrame([{"checkpoint": "main", **record} for record in records])
    untrained = table["checkpoint"].isin(["init", "step0"])
    return origins(table, untrained)


def test_quantized_copies_are_the_unquantized_model():
    same = {"id": "org/small", "revision": "abc"}
    units = found(
        {"model": "a-nf4", "quantization": "nf4", **same},
        {"model": "small", "quantization": None, **same},
        {"model": "z-int8", "quantization": "int8", **same},
        {"model": "other", "id": "org/small", "revision": "def"},
    )
    assert units["origin"].tolist() == ["small", "small", "small", "other"]
    assert units["weights"].tolist() == ["small main"] * 3 + ["other main"]


def test_a_link_is_the_directory_that_it_leads_to(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to("m")
    units = found({"model": "b", "path": tmp_path / "m"}, {"model": "a", "path": tmp_path / "link"})
    assert units["origin"].tolist() == ["a", "a"]


def test_content_decides_where_it_is_known():
    units = found(
        {"model": "a", "path": "/x", "identity": weights("1")},
        {"model": "b", "path": "/y", "identity": weights("1")},
        {"model": "c", "path": "/x", "identity": weights("2")},
    )
    assert units["origin"].tolist() == ["a", "a", "c"]


def test_models_that_share_one_trained_checkpoint_are_of_one_origin():
    units = found(
        {"model": "run", "checkpoint": "step1", "path": "/run/1"},
        {"model": "run", "checkpoint": "step2", "path": "/run/2"},
        {"model": "half", "path": "/run/1"},
    )
    assert units["origin"].tolist() == ["half"] * 3
    assert units["weights"].tolist() == ["half main", "run step2", "half main"]


def test_equal_beginnings_make_no_two_runs_one():
    units = found(
        {
            "model": "a",
            "checkpoint": "step0",
            "path": "/a/0",
            "identity": weights("same"),
        },
        {
            "model": "a",
            "checkpoint": "step9",
            "path": "/a/9",
            "identity": weights("1"),
        },
        {
            "model": "b",
            "checkpoint": "step0",
            "path": "/b/0",
            "identity": weights("same"),
        },
        {
            "model": "b",
            "checkpoint": "step9",
            "path": "/b/9",
            "identity": weights("2"),
        },
    )
    assert units["origin"].tolist() == ["a", "a", "b", "b"]


def test_new_weights_are_those_of_their_seed():
    units = found(
        {"model": "a", "checkpoint": "init", "path": "/a", "init_seed": 0},
        {"model": "a", "path": "/a", "init_seed": None},
        {"model": "b", "checkpoint": "init", "path": "/a", "init_seed": 0, "quantization": "nf4"},
        {"model": "b", "path": "/a", "init_seed": None, "quantization": "nf4"},
    )
    assert units["origin"].tolist() == ["a"] * 4
    assert units["weights"].tolist() == ["a init", "a main", "a init", "a main"]


def test_new_weights_in_two_places_are_those_of_their_configuration():
    new = {"weights": None, "config": "c"}
    units = found(
        {"model": "a", "checkpoint": "init", "path": "/a", "init_seed": 0, "identity": new},
        {"model": "a", "path": "/a", "identity": weights("1")},
        {"model": "b", "checkpoint": "init", "path": "/b", "init_seed": 0, "identity": new},
        {"model": "b", "path": "/b", "identity": weights("1")},
    )
    assert units["weights"].tolist() == ["a init", "a main", "a init", "a main"]


def study(random: np.random.Generator, models: int, copies: int, noise: float = 0.1):
    """Points of independent models, the first of them measured `copies` times, and their scores."""
    owner = np.concatenate([np.zeros(copies - 1, int), np.arange(models)])
    x, y = random.normal(size=(2, models))
    table = pd.DataFrame(
        {
            "model": [f"m{i:02d}-{n}" for n, i in enumerate(owner)],
            "checkpoint": "main",
            "family": "f",
            "base": True,
            "untrained": False,
            "final": True,
            "step": np.nan,
            "origin": [f"m{i:02d}" for i in owner],
            "weights": [f"m{i:02d} main" for i in owner],
            **dict.fromkeys([*FACTS, "parameters", "log_tokens"], 1.0),
            **dict.fromkeys(MEASURES, np.nan),
        }
    )
    table["coupling"] = x[owner] + noise * random.normal(size=len(owner))
    value = y[owner] + noise * random.normal(size=len(owner))
    scores = table[["model", "checkpoint"]].assign(
        score="s", metric="m", value=value, higher_is_better=True
    )
    return table, scores


def test_exact_copies_change_nothing():
    table, scores = study(np.random.default_rng(1), models=9, copies=4, noise=0)
    one = correlate(table, scores, resamples=200)
    alone = correlate(table.iloc[3:], scores.iloc[3:], resamples=200)
    numbers = ["n", "models", "slope", "r2", "r2_low", "r2_high", "pearson_p", "spearman_p"]
    pd.testing.assert_frame_equal(one[numbers], alone[numbers])
    assert set(one["copies"]) == {3}
    assert set(alone["copies"]) == {0}


@pytest.mark.slow
def test_p_values_hold_their_level_with_copies():
    """Nothing correlates; one of ten models is listed eight times."""
    random = np.random.default_rng(0)
    honest, naive = [], []
    for _ in range(400):
        table, scores = study(random, models=10, copies=8)
        points = merge_copies(table.merge(scores, on=["model", "checkpoint"]))
        honest.append(
            relate(points["coupling"], points["value"], points["model"], resamples=1)["pearson_p"]
        )
        naive.append(stats.pearsonr(table["coupling"], scores["value"]).pvalue)
    # 400 tests at 5 %: 20 ± 4.4 are expected, 33 are three standard deviations more.
    assert np.sum(np.array(honest) < 0.05) < 33
    assert stats.kstest(honest, "uniform").pvalue > 0.01
    assert np.sum(np.array(naive) < 0.05) > 60


@pytest.mark.slow
def test_intervals_cover_as_often_with_copies_as_without():
    random = np.random.default_rng(2)
    truth, covered, width = 0.5, [], []
    for _ in range(150):
        table, scores = study(random, models=24, copies=12, noise=0.02)
        points = merge_copies(table.merge(scores, on=["model", "checkpoint"]))
        y = np.sqrt(truth) * points["coupling"] + np.sqrt(1 - truth) * points["value"]
        found = relate(points["coupling"], y, points["model"], resamples=300)
        covered.append(found["r2_low"] <= truth <= found["r2_high"])
        width.append(found["r2_high"] - found["r2_low"])
    # Percentile intervals of 24 points cover somewhat less than 95 %; 150 draws give ± 2 %.
    assert np.mean(covered) > 0.85
    assert np.mean(width) == pytest.approx(0.5, abs=0.1)


def test_components_of_variance_see_one_model():
    random = np.random.default_rng(3)
    index = pd.MultiIndex.from_product([list("abc"), ["main"], ["d"], list("12345")])
    values = index.to_frame(index=False, name=["model", "checkpoint", "dataset", "prompt"])
    values["y"] = random.normal(size=len(values))
    points = pd.DataFrame(
        {"model": list("abc"), "checkpoint": "main", "origin": list("aac")}
    ).assign(weights=lambda t: t["origin"] + " main")
    merged = of_one_origin(values, points)
    by_hand = values.assign(model=values["model"].replace("b", "a"))
    expected = by_hand.groupby(["model", "dataset", "prompt"])["y"].mean()
    assert merged.set_index(["model", "dataset", "prompt"])["y"].to_dict() == expected.to_dict()
    levels = components(merged, ["y"]).set_index("component")["levels"]
    assert levels["models"] == 2
