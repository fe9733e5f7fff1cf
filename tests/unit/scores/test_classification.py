"""Accuracy, loss and calibration against scikit-learn, independent definitions, known truth."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from blockcoupling.errors import MeasurementError
from blockcoupling.scores.classification import calibration_error, classification_scores


def data(seed: int = 0, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(10, size=n)
    logits = random.normal(size=(n, 10)) * 2
    logits[np.arange(n), labels] += 1.5
    return logits, labels


def test_accuracy_and_loss_are_scikit_learns() -> None:
    logits, labels = data()
    rows = {row["metric"]: row for row in classification_scores(logits, labels)}
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert rows["accuracy"]["value"] == accuracy_score(labels, logits.argmax(1))
    assert rows["loss"]["value"] == pytest.approx(log_loss(labels, chances), rel=1e-12)
    share = rows["accuracy"]["value"]
    # The standard error of a share, n − 1 in place of n.
    assert rows["accuracy"]["standard_error"] == pytest.approx((share * (1 - share) / 499) ** 0.5)
    assert {row["n"] for row in rows.values()} == {500}
    assert [rows[m]["higher_is_better"] for m in ("accuracy", "loss")] == [True, False]


def test_the_standard_error_of_the_loss_is_its_spread_over_samples() -> None:
    means, errors = [], []
    for seed in range(200):
        row = classification_scores(*data(seed, 100))[1]
        means.append(row["value"])
        errors.append(row["standard_error"])
    # A standard deviation of 200 draws is good to 1 / √400 = 5 %; three of those.
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.15)


def slow(chances: np.ndarray, labels: np.ndarray, bins: int) -> float:
    total = 0.0
    confidence, right = chances.max(1), chances.argmax(1) == labels
    for b in range(bins):
        own = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if own.any():
            total += own.mean() * abs(right[own].mean() - confidence[own].mean())
    return total


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_error_is_its_definition(bins: int) -> None:
    logits, labels = data()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert calibration_error(chances, labels, bins) == pytest.approx(slow(chances, labels, bins))


def test_calibration_of_known_cases() -> None:
    sure = np.eye(4)[[0, 1, 2, 3]]
    assert calibration_error(sure, np.arange(4)) == 0
    assert calibration_error(sure, np.array([0, 1, 0, 0])) == 0.5
    # Three of four right, and 75 % sure each time.
    told = np.array([[0.75, 0.25]] * 4)
    assert calibration_error(told, np.array([0, 0, 0, 1])) == pytest.approx(0)


def test_a_single_image_has_no_standard_error_and_infinity_is_refused() -> None:
    (accuracy, *_) = classification_scores(np.array([[1.0, 0.0]]), np.array([0]))
    assert accuracy["value"] == 1
    assert math.isnan(accuracy["standard_error"])
    with pytest.raises(MeasurementError, match="not finite"):
        classification_scores(np.array([[-np.inf, 0.0]]), np.array([0]))
