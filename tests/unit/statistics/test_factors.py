"""What members of a population were given: known, held fixed, and not taken for coupling."""

import numpy as np
import pandas as pd
import pytest

from blockcoupling.statistics.correlate import correlate
from blockcoupling.statistics.factors import covariates, known_factors
from blockcoupling.statistics.prediction import leave_out
from blockcoupling.statistics.predictors import COVARIATES, FACTS, MEASURES
from blockcoupling.statistics.regression import relate


def sweep(models: int = 40, causes: float = 0.0) -> pd.DataFrame:
    """The learning rate decides coupling and score; coupling has a part of its own."""
    random = np.random.default_rng(4)
    rate = 10 ** random.uniform(-4, -2, models)
    own = random.normal(0, 0.3, models)
    table = pd.DataFrame({name: random.normal(size=models) for name in [*MEASURES, *FACTS]})
    score = np.log10(rate) + causes * own + random.normal(0, 0.1, models)
    return table.assign(
        **{"factor.learning_rate": rate, "factor.dropout": np.resize([0, 0.1], models)},
        **{"factor.seed": np.arange(models), "factor.blocks": np.resize([2, 3], models)},
        **{"model": [f"m{n}" for n in range(models)], "checkpoint": "step9", "final": True},
        **{"untrained": False, "step": 9, "parameters": 1e6, "family": "f", "base": None},
        origin=[f"m{n}" for n in range(models)],
        weights=[f"w{n}" for n in range(models)],
        depth=np.resize([2.0, 3, 4, 5], models),
        log_tokens=5.0,
        coupling=np.log10(rate) + own,
        value=score,
    )


def test_factors_are_numbers_and_those_given_by_factors_logarithms() -> None:
    points = sweep()
    found = known_factors(points)
    assert list(found) == ["log_learning_rate", "dropout"]
    expected = np.log10(points["factor.learning_rate"])
    np.testing.assert_allclose(found["log_learning_rate"], expected)


def test_what_some_points_were_not_given_or_all_the_same_is_left_out() -> None:
    points = sweep()
    points.loc[0, "factor.dropout"] = np.nan
    points["factor.learning_rate"] = 0.1
    points["factor.kind"] = "word"
    assert known_factors(points) == {}


@pytest.mark.parametrize("causes", [0.0, 1.0])
def test_what_a_factor_does_is_not_taken_for_coupling(causes: float) -> None:
    points = sweep(causes=causes)
    scores = points[["model", "checkpoint", "value"]].assign(
        score="heldout", metric="loss", higher_is_better=False
    )
    table = correlate(points.drop(columns="value"), scores, resamples=20)
    row = table[(table["predictor"] == "coupling") & (table["subset"] == "final")].iloc[0]
    assert row["pearson"] > 0.8
    assert "log_learning_rate" in row["partial_given"]
    # Without a part of its own, r of 35 degrees of freedom is within 2.6 / sqrt(35) in 99 %.
    assert (row["partial"] > 0.8) if causes else (abs(row["partial"]) < 0.44)
    rows = {each["predictors"]: each for each in leave_out(points, "model", resamples=20)}
    assert "log_learning_rate" in rows["hyperparameters"]["given"]
    added = rows["hyperparameters + coupling"]["added_q2"]
    assert (added > 0.05) if causes else (abs(added) < 0.01)


def test_a_curved_confounder_with_few_values_is_held_by_classes() -> None:
    """x and y both follow 64 / width, with noise of their own, over four widths."""
    random = np.random.default_rng(0)
    width = np.repeat([16.0, 32, 64, 128], 10)
    table = pd.DataFrame(dict.fromkeys(COVARIATES, np.nan), index=range(40))
    table = table.assign(dimension=width)
    found: dict[str, list[bool]] = {"line": [], "classes": [], "default": []}
    for _ in range(100):
        x, y = 64 / width + 0.3 * random.normal(size=(2, 40))
        for way, results in found.items():
            hold = {} if way == "default" else {"width": way}
            row = relate(x, y, covariates=covariates(table, "coupling", hold))
            results.append(row["partial_p"] <= 0.05)
    assert np.mean(found["line"]) > 0.9
    # 5 % expected; three standard errors of 100 trials are 6.5 %.
    assert np.mean(found["classes"]) <= 0.115
    assert found["default"] == found["classes"]
    assert row["partial_given"] == "dimension (classes)"


def test_classes_need_three_to_five_values_with_four_points_each() -> None:
    table = pd.DataFrame(dict.fromkeys(COVARIATES, np.nan), index=range(12))
    table["depth"] = np.resize([2.0, 4, 8], 12)
    table["dimension"] = np.resize([32.0, 64], 12)  # with two values a line is the same
    table["log_tokens"] = np.resize([7.0, 8, 9, 10], 12)  # three points each
    held = covariates(table, "coupling", {})
    assert [*held] == [
        *("log_parameters", "depth (classes) = 4", "depth (classes) = 8", "dimension", "log_tokens")
    ]
    assert held["depth (classes) = 8"].tolist() == [0.0, 0, 1] * 4
    assert [*covariates(table, "depth", {"tokens": "line"})] == [
        *("log_parameters", "dimension", "log_tokens")
    ]
