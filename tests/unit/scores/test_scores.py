"""Scores against what they must be for known predictors, and against direct sums."""

from math import log
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_model import save_tiny_model

from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.lab.training.tokenizer import byte_tokenizer
from blockcoupling.scores.scores import COLUMNS, evaluate, write_scores
from blockcoupling.scores.text import ratio, text_scores
from blockcoupling.sources.corpus import corpus
from blockcoupling.sources.models import load_model, record_of

TEXTS = ["a", "two words", "né" * 40, "x" * 65]


class Predictor:
    """A model whose logits are a function of the tokens it is given."""

    device = "cpu"

    def __init__(self, logits) -> None:
        self.logits = logits

    def __call__(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits(input_ids))


def uniform(ids: torch.Tensor) -> torch.Tensor:
    return torch.zeros(*ids.shape, 257)


def same_again(ids: torch.Tensor) -> torch.Tensor:
    """Logits that are sure of the token before."""
    return 100.0 * torch.nn.functional.one_hot(ids, 257)


def by_metric(rows: list[dict]) -> dict[str, dict]:
    return {row["metric"]: row for row in rows}


def test_a_uniform_predictor_loses_the_logarithm_of_the_vocabulary() -> None:
    rows = by_metric(text_scores(Predictor(uniform), byte_tokenizer(16), TEXTS, 16))
    # Every byte of every text is predicted once: float32 sums of equal terms.
    assert rows["nats_per_byte"]["value"] == pytest.approx(log(257), rel=1e-6)
    assert rows["nats_per_byte"]["standard_error"] == pytest.approx(0, abs=1e-6)
    assert rows["nats_per_byte"]["n"] == 4
    assert not rows["nats_per_byte"]["higher_is_better"]


def test_accuracy_counts_every_token_once() -> None:
    # "aab|bb" in windows of 3: the byte before is the byte itself for a, b, b; the first of the
    # second window is predicted from the last of the first; the mark before "a" is not "a".
    rows = by_metric(text_scores(Predictor(same_again), byte_tokenizer(3), ["aabbb"], 3))
    assert rows["next_token_accuracy"]["value"] == 3 / 5
    assert np.isnan(rows["next_token_accuracy"]["standard_error"])


@pytest.mark.parametrize("context", [1, 3, 64])
def test_windows_predict_what_the_model_says(tmp_path: Path, context: int) -> None:
    model, tokenizer = load_model(record_of(str(save_tiny_model(tmp_path / "m"))), device="cpu")
    model = model.double()
    rows = by_metric(text_scores(model, tokenizer, TEXTS, context))
    nats, correct, count = 0.0, 0, 0
    for text in TEXTS:
        sequence = [256, *text.encode()]
        for target in range(1, len(sequence)):
            first = (target - 1) // context * context
            logits = model(input_ids=torch.tensor([sequence[first:target]])).logits[0, -1]
            nats -= logits.log_softmax(-1)[sequence[target]].item()
            correct += logits.argmax().item() == sequence[target]
            count += 1
    # Logits are scored in float32.
    assert rows["nats_per_byte"]["value"] == pytest.approx(nats / count, rel=1e-5)
    assert rows["next_token_accuracy"]["value"] == pytest.approx(correct / count, abs=1e-12)


def test_nats_are_shared_by_bytes_and_by_tokens() -> None:
    class Letters:
        """One token a character, two bytes each."""

        bos_token_id = 0

        def __call__(self, text: str, **_: object) -> dict:
            return {"input_ids": [1] * len(text)}

    rows = by_metric(text_scores(Predictor(uniform), Letters(), ["éé", "é"], None))
    assert rows["nats_per_token"]["value"] == pytest.approx(log(257), rel=1e-6)
    assert rows["nats_per_byte"]["value"] == pytest.approx(log(257) / 2, rel=1e-6)


def test_the_error_of_a_ratio_is_that_of_repeated_sampling() -> None:
    generator = np.random.default_rng(0)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        size = generator.integers(500, 2500, n).astype(float)
        return size * generator.normal(2.0, 0.5, n) + 100 * generator.normal(size=n), size

    found = [ratio(*sample(40)) for _ in range(4000)]
    values, errors = np.array(found).T
    # The spread of 4000 values is known to 1.1 %; the formula is biased by about 1/n = 2.5 %.
    assert values.std() == pytest.approx(np.sqrt((errors**2).mean()), rel=0.06)


def test_equal_sizes_make_it_the_error_of_a_mean() -> None:
    y = np.array([1.0, 2.0, 4.0])
    value, error = ratio(y, np.ones(3))
    assert value == pytest.approx(y.mean())
    assert error == pytest.approx(y.std(ddof=1) / np.sqrt(3))


def test_what_cannot_be_scored() -> None:
    def broken(ids: torch.Tensor) -> torch.Tensor:
        return uniform(ids) * float("nan")

    with pytest.raises(MeasurementError, match="not finite"):
        text_scores(Predictor(broken), byte_tokenizer(16), TEXTS, 16)
    unmarked = SimpleNamespace(bos_token_id=None, eos_token_id=None)
    with pytest.raises(UserError, match=r"score\.heldout: false"):
        text_scores(Predictor(uniform), unmarked, TEXTS, 16)


RECORDED = {
    "board": {
        "value": 30.5,
        "source": "a page",
        "metric": "average",
        "standard_error": None,
        "higher_is_better": True,
    }
}


def test_recorded_scores_need_no_model() -> None:
    record = {"name": "m", "checkpoint": "main", "source": "local", "path": "/nowhere"}
    table = evaluate(record, {"heldout": False, "harness": {}, "recorded": RECORDED})
    assert list(table.columns) == list(COLUMNS)
    (row,) = table.to_dict("records")
    assert (row["model"], row["score"], row["metric"], row["value"]) == (
        "m",
        "board",
        "average",
        30.5,
    )
    assert np.isnan(row["standard_error"])


def test_the_table_of_a_checkpoint(tmp_path: Path) -> None:
    record = record_of(str(save_tiny_model(tmp_path / "m")))
    spec = {"heldout": True, "harness": {}, "recorded": RECORDED}
    write_scores(record, spec, tmp_path / "out" / "scores.parquet", device="cpu")
    table = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert set(table["metric"]) == {
        "average",
        "nats_per_byte",
        "nats_per_token",
        "next_token_accuracy",
    }
    heldout = table[table["score"] == "heldout"]
    assert set(heldout["n"]) == {len(corpus().heldout)}
    assert heldout["source"].str.contains("pydoc_data").all()
    assert (heldout["standard_error"] > 0).all()


def test_a_checkpoint_without_scores_has_an_empty_table() -> None:
    record = {"name": "m", "checkpoint": "main"}
    table = evaluate(record, {"heldout": False, "harness": {}, "recorded": {}})
    assert table.empty
    assert list(table.columns) == list(COLUMNS)
