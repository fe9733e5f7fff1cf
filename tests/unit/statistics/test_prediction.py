"""Prediction of what was left out: against scikit-learn used directly, and planted truths."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score

from blockcoupling.statistics.prediction import LEFT_OUT, SETS, leave_out, predict
from blockcoupling.statistics.predictors import COVARIATES, FACTS, MEASURES


def suite(
    seed: int, *, models: int = 24, causes: float = 0.0, checkpoints: int = 1
) -> pd.DataFrame:
    """Depth decides coupling and score; what coupling has of its own counts as much as `causes`."""
    random = np.random.default_rng(seed)
    depth = random.permutation(np.resize([8.0, 12.0, 16.0, 24.0, 32.0, 40.0], models))
    own = random.normal(size=models)
    points = pd.DataFrame(
        {
            "origin": [f"m{n:02d}" for n in range(models)],
            "family": np.resize(list("abcdef"), models),
            "depth": depth,
            "dimension": 64 * depth * random.choice([1, 2], models),
            "log_tokens": random.uniform(9, 12, models),
            "coupling": (depth - 20) / 10 + own,
            "value": (depth - 20) / 10 + causes * own + 0.5 * random.normal(size=models),
        }
    )
    points["log_parameters"] = np.log10(12 * points["depth"] * points["dimension"] ** 2)
    points = points.loc[points.index.repeat(checkpoints)].reset_index(drop=True)
    points["value"] += 0.01 * random.normal(size=len(points))
    return points


@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_numbers_are_those_of_scikit_learn_used_directly(left_out):
    points = suite(0, causes=0.5, checkpoints=2)
    found = {row["predictors"]: row for row in leave_out(points, left_out, resamples=50)}
    assert list(found) == list(SETS)
    groups = points[LEFT_OUT[left_out]].to_numpy()
    y = points["value"].to_numpy()
    for name, (hyperparameters, coupled) in SETS.items():
        columns = [*(COVARIATES if hyperparameters else ()), *(["coupling"] if coupled else [])]
        x = points[columns].to_numpy()
        predicted = np.empty(len(y))
        for group in np.unique(groups):
            kept = groups != group
            predicted[~kept] = LinearRegression().fit(x[kept], y[kept]).predict(x[~kept])
        # The same least squares on predictors that are not standardized, in float64.
        assert found[name]["q2"] == pytest.approx(r2_score(y, predicted), abs=1e-8)
        assert found[name]["mae"] == pytest.approx(mean_absolute_error(y, predicted), abs=1e-8)
        assert found[name]["groups"] == len(np.unique(groups))
        assert (found[name]["n"], found[name]["models"]) == (48, 24)
        # Among six depths a resample has four on average: its fits are other ones.
        if left_out != "depth":
            assert found[name]["q2_low"] < found[name]["q2"] < found[name]["q2_high"]
    both = found["hyperparameters + coupling"]
    assert both["added_q2"] == pytest.approx(both["q2"] - found["hyperparameters"]["q2"])


def test_intervals_are_those_of_fits_repeated_in_each_resample_of_groups():
    points = suite(1, models=12)
    row = leave_out(points, "family", resamples=400, seed=3)[1]
    x, y = points[["coupling"]].to_numpy(), points["value"].to_numpy()
    family = points["family"].to_numpy()
    draws = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), 400)
    values = []
    for counts in draws:
        chosen = np.repeat(np.arange(12), counts[np.unique(family, return_inverse=True)[1]])
        predicted = np.empty(len(chosen))
        for group in np.unique(family[chosen]):
            own = family[chosen] == group
            fit = LinearRegression().fit(x[chosen][~own], y[chosen][~own])
            predicted[own] = fit.predict(x[chosen][own])
        values.append(r2_score(y[chosen], predicted))
    expected = np.percentile(values, [2.5, 97.5])
    assert (row["q2_low"], row["q2_high"]) == pytest.approx(tuple(expected), abs=1e-9)


def test_a_planted_effect_is_found():
    found = [leave_out(suite(seed, causes=1), "model", resamples=300)[-1] for seed in range(10)]
    assert np.mean([row["added_low"] > 0 for row in found]) >= 0.9
    found = [leave_out(suite(seed, causes=1), "family", resamples=300)[-1] for seed in range(10)]
    # Six families: with fits repeated in each resample half of the effects are found.
    assert np.mean([row["added_low"] > 0 for row in found]) >= 0.4
    assert np.mean([row["q2"] > 0.5 for row in found]) >= 0.9


def test_a_confounder_is_not_taken_for_an_effect():
    """Coupling follows depth, and so does the score; given depth it tells nothing."""
    rows = [leave_out(suite(seed), "family", resamples=300) for seed in range(30)]
    alone = [row[1]["q2"] for row in rows]
    added = [row[-1]["added_low"] > 0 for row in rows]
    assert np.median(alone) > 0.2  # by itself it looks good
    # 2.5 % are expected of an exact interval: 5 or more of 30 in one case of 1000.
    assert np.sum(added) < 5


def test_copies_and_checkpoints_of_a_model_are_left_out_with_it():
    """A model's own checkpoints would give its score away."""
    random = np.random.default_rng(0)
    points = suite(2, models=12, checkpoints=6)
    points["coupling"] = points.groupby("origin")["coupling"].transform(
        lambda _: random.normal()
    ) + 1e-3 * random.normal(size=len(points))
    points["value"] = points.groupby("origin")["value"].transform(lambda _: random.normal())
    assert leave_out(points, "model", resamples=50)[1]["q2"] < 0.1


def test_too_few_groups_give_no_number():
    points = suite(3, models=6).assign(family=list("aabbcc"))
    for row in leave_out(points, "family"):
        assert np.isnan([row["q2"], row["mae"], row["added_q2"]]).all()
        assert "3 families to leave out in turn: too few, at least 4 are needed" in row["note"]


def test_too_few_models_for_so_many_slopes():
    rows = leave_out(suite(4, models=6), "model", resamples=50)
    assert "without model m00 there are 5 models to fit 4 slopes to" in rows[0]["note"]
    assert np.isfinite(rows[1]["q2"])
    assert np.isnan(rows[2]["added_q2"])


def test_unknown_and_constant_hyperparameters_are_not_used():
    points = suite(5).assign(log_tokens=np.nan, dimension=64)
    points.loc[3, "coupling"] = np.nan
    rows = leave_out(points, "model", resamples=50)
    assert rows[0]["given"] == "log_parameters, depth"
    assert {row["n"] for row in rows} == {23}
    assert rows[1]["note"] == "1 of 24 points lack a finite value"
    nothing = points.assign(log_parameters=8.0, depth=6)
    why = "no hyperparameter is known and differs between points"
    assert why in leave_out(nothing, "model", resamples=50)[0]["note"]


def test_a_constant_score_is_said():
    row = leave_out(suite(6).assign(value=1.0), "model")[1]
    assert row["note"] == "constant score: nothing to predict"


def test_every_score_subset_and_group_has_its_rows():
    points = suite(7, models=8).reindex(columns=[*dict.fromkeys([*suite(7), *MEASURES, *FACTS])])
    points = points.assign(checkpoint="main", untrained=False, final=True, base=True)
    points = points.assign(model=points["origin"], weights=points["origin"], parameters=1e6)
    scores = points[["model", "checkpoint", "value"]].assign(
        score="s", metric="m", higher_is_better=True
    )
    found = predict(points.drop(columns="value"), scores, resamples=20, seed=1)
    assert len(found) == len(LEFT_OUT) * len(SETS)
    assert set(found["subset"]) == {"final"}
    by_hand = leave_out(points, "model", resamples=20, seed=1)
    own = found[found["left_out"] == "model"]
    assert own["q2"].tolist() == pytest.approx([row["q2"] for row in by_hand], nan_ok=True)
    empty = predict(points.drop(columns="value"), scores.iloc[:0])
    assert list(empty.columns) == list(found.columns)


def test_an_infinite_score_is_left_out_and_counted():
    points = suite(1)
    points.loc[0, "value"] = np.inf
    rows = leave_out(points, "model", resamples=20)
    rest = leave_out(points.iloc[1:], "model", resamples=20)
    assert [row["q2"] for row in rows] == [row["q2"] for row in rest]
    assert all(row["note"] == "1 of 24 points lack a finite value" for row in rows)
