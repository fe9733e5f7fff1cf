"""The generalization gap: differences of what both sides say, and a model that has memorised."""

from math import hypot, log
from pathlib import Path

import pytest

from blockcoupling.config.study import Study
from blockcoupling.errors import UserError
from blockcoupling.lab.training import train
from blockcoupling.lab.training.gap import gap
from blockcoupling.scores.scores import evaluate
from blockcoupling.sources.corpus import corpus
from blockcoupling.sources.models import model_record
from blockcoupling.study.check import load_config

TRAIN = {"hidden_size": 32, "blocks": 2, "heads": 2, "context": 32, "batch": 16, "text": 0.02}


def row(value: float, error: float, higher: bool = False) -> dict[str, object]:
    return {
        **{"metric": "m", "value": value, "standard_error": error},
        **{"n": 4, "higher_is_better": higher},
    }


def test_the_gap_is_the_difference_and_its_error_that_of_independent_texts() -> None:
    (found,) = gap([row(2.5, 0.3)], [row(2.0, 0.4)])
    assert found["value"] == 0.5
    assert found["standard_error"] == pytest.approx(0.5)  # 3, 4, 5
    assert found["n"] == 8


def spec(**score: object) -> dict[str, object]:
    config = {"models": {"m": {"train": TRAIN, "init": True}}, "score": score}
    return Study.model_validate(config).score_spec("m", "step600")


@pytest.mark.slow
def test_a_model_trained_on_little_text_has_a_gap_and_an_untrained_one_none(tmp_path: Path) -> None:
    steps = {"steps": 300, "learning_rate": 0.01, "checkpoints": [0, 300]}
    train({"name": "m", **TRAIN, **steps}, tmp_path, threads=1)
    asked = spec(gap=True)
    assert asked["gap"] == {"text": 0.02, "shuffled": 0.0}
    tables = {}
    for step in (0, 300):
        where = {"source": "train", "path": str(tmp_path / f"step{step}")}
        record = model_record({"name": "m", "checkpoint": f"step{step}", **where})
        table = evaluate(record, asked, device="cpu")
        tables[step] = table.set_index(["score", "metric"])
        assert list(table["score"].unique()) == ["heldout", "training", "gap"]
    for table in tables.values():
        heldout, seen, difference = (
            table.loc[(score, "nats_per_byte")] for score in ("heldout", "training", "gap")
        )
        assert difference["value"] == pytest.approx(heldout["value"] - seen["value"])
        assert difference["standard_error"] == pytest.approx(
            hypot(heldout["standard_error"], seen["standard_error"])
        )
        assert heldout["n"] == len(corpus().heldout)
        assert seen["n"] == len(corpus().seen(0.02))
    # Untrained, all bytes are nearly as likely, seen or not; then 7 kB are learned by heart.
    untrained, trained = (tables[step].loc[("gap", "nats_per_byte"), "value"] for step in (0, 300))
    assert tables[0].loc[("heldout", "nats_per_byte"), "value"] == pytest.approx(log(257), abs=0.1)
    assert abs(untrained) < 0.05
    assert trained > 0.5


def test_only_a_study_that_asks_has_a_gap() -> None:
    assert "gap" not in spec()
    models = {"m": {"train": TRAIN}, "other": {"id": "x/y"}}
    study = load_config({"models": models, "score": {"name": "gap", "gap": True}})
    assert study.score.metric == "nats_per_byte"
    assert "gap" not in study.score_spec("other", "main")
    with pytest.raises(UserError, match="no score 'gap' is evaluated"):
        load_config({"models": models, "score": {"name": "gap"}})
    with pytest.raises(UserError, match="it is the gap to held-out text"):
        load_config({"models": models, "score": {"gap": True, "heldout": False}})
