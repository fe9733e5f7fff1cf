"""Training learns, repeats itself to the last bit, and leaves ordinary model directories."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from blockcoupling.config.models import Training
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.lab.training import train
from blockcoupling.lab.training.neox import NeoxRun, learning_rate_factor, training_bytes
from blockcoupling.scores.text import text_scores
from blockcoupling.sources.corpus import corpus

SPEC = {
    "name": "tiny",
    "hidden_size": 32,
    "blocks": 2,
    "heads": 4,
    "context": 32,
    "batch": 8,
    "steps": 20,
    "learning_rate": 1.0e-2,
    "seed": 0,
    "checkpoints": [0, 3, 20],
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return train(SPEC, tmp_path_factory.mktemp("tiny"), threads=1)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_checkpoints_are_ordinary_directories(checkpoints: dict[int, Path]) -> None:
    assert {step: path.name for step, path in checkpoints.items()} == {
        0: "step0",
        3: "step3",
        20: "step20",
    }
    for step, path in checkpoints.items():
        model = AutoModelForCausalLM.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        logits = model(**tokenizer("if", return_tensors="pt")).logits
        assert logits.shape == (1, 2, 257)
        facts = json.loads((path / "training.json").read_text())
        assert (facts["step"], facts["tokens"]) == (step, step * 8 * 32)
        assert facts["parameters"] == model.num_parameters()
        assert not [name for name in path.iterdir() if name.suffix == ".bin"]


def test_heldout_loss_falls(checkpoints: dict[int, Path]) -> None:
    texts = [passage.text for passage in corpus().heldout[:4]]
    loss = {}
    for step, path in checkpoints.items():
        model = AutoModelForCausalLM.from_pretrained(path)
        (row, *_) = text_scores(model, AutoTokenizer.from_pretrained(path), texts, 32)
        loss[step] = row["value"]
    # Untrained predictions are nearly uniform over 257 tokens (ln 257 = 5.55); letters' own
    # frequencies alone are worth about 2.3 nats.
    assert loss[0] == pytest.approx(5.55, abs=0.1)
    assert loss[20] < loss[3] < loss[0]
    assert loss[20] < 4


def test_the_same_seed_gives_the_same_bits(checkpoints: dict[int, Path], tmp_path: Path) -> None:
    again = train(SPEC, tmp_path, threads=1)
    for step, path in checkpoints.items():
        assert equal(weights(path), weights(again[step]))


def test_another_seed_gives_other_weights_from_the_start(
    checkpoints: dict[int, Path], tmp_path: Path
) -> None:
    other = train(SPEC | {"seed": 1, "checkpoints": [0]}, tmp_path, threads=1)
    assert not equal(weights(checkpoints[0]), weights(other[0]))


def test_checkpoints_do_not_change_the_training(
    checkpoints: dict[int, Path], tmp_path: Path
) -> None:
    fewer = train(SPEC | {"checkpoints": [3]}, tmp_path, threads=1)
    assert list(fewer) == [3]
    assert equal(weights(checkpoints[3]), weights(fewer[3]))


def test_callers_keep_their_threads_and_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = torch.get_num_threads()
    train(SPEC | {"checkpoints": [1]}, tmp_path, threads=before + 1)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.rand(2), expected)


def test_a_checkpoint_that_was_there_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "step0").mkdir()
    (tmp_path / "step0" / "old").touch()
    train(SPEC | {"checkpoints": [0]}, tmp_path, threads=1)
    assert not (tmp_path / "step0" / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["step0"]


def test_training_that_diverges_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"training tiny: the loss is .* at step"):
        train(SPEC | {"learning_rate": 1e30, "checkpoints": [20]}, tmp_path, threads=1)


def test_a_wrong_description_lists_its_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        train({"name": "x", "hidden_sise": 32, "blocks": 1}, tmp_path)
    message = str(caught.value)
    assert "the training of x has 2 mistakes" in message
    assert "train.hidden_sise: unknown key; did you mean hidden_size?" in message
    assert "train.blocks: should be greater than or equal to 2" in message


@pytest.mark.parametrize(
    "changed", [{"weight_decay": 0.5}, {"dropout": 0.3}, {"text": 0.1}], ids=lambda c: next(iter(c))
)
def test_each_setting_changes_the_weights_and_neither_start_nor_batches(
    changed: dict[str, float], checkpoints: dict[int, Path], tmp_path: Path
) -> None:
    other = train(SPEC | changed | {"checkpoints": [0, 3]}, tmp_path, threads=1)
    assert equal(weights(checkpoints[0]), weights(other[0]))
    assert not equal(weights(checkpoints[3]), weights(other[3]))
    facts = json.loads((other[3] / "training.json").read_text())
    assert facts["training"] | changed == facts["training"]


def test_weights_decay_by_the_rate_times_the_share(tmp_path: Path) -> None:
    # AdamW subtracts rate x decay of each weight, in addition to an equal step: after one update
    # at the full rate (one step of warm-up) two decays differ by that times the first weights.
    one = SPEC | {"steps": 1, "checkpoints": [0, 1]}
    found = {d: train(one | {"weight_decay": d}, tmp_path / str(d), threads=1) for d in (0.0, 0.5)}
    start = weights(found[0.0][0])
    plain, decayed = (weights(found[d][1]) for d in (0.0, 0.5))
    for name, before in start.items():
        # To the float32 rounding of weights below 2.
        assert torch.allclose(plain[name] - decayed[name], 1e-2 * 0.5 * before, atol=5e-7), name


def test_nothing_is_dropped_where_a_model_is_measured(tmp_path: Path) -> None:
    (place,) = train(SPEC | {"dropout": 0.5, "checkpoints": [1]}, tmp_path, threads=1).values()
    model = AutoModelForCausalLM.from_pretrained(place).eval()
    ids = torch.arange(20)[None]
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_training_text_is_the_passages_with_marks() -> None:
    tokens = training_bytes()
    assert (tokens == 256).sum() == len(corpus().training)
    pieces = bytes(tokens[1:].clip(max=255).astype("uint8")).split(b"\xff")
    assert pieces == [passage.text.encode() for passage in corpus().training]


@given(st.integers(1, 2000))
def test_the_learning_rate_rises_to_one_and_falls_to_a_tenth(total: int) -> None:
    factors = [learning_rate_factor(step, total) for step in range(1, total + 1)]
    top = factors.index(max(factors))
    assert max(factors) == pytest.approx(1, abs=0.1 if total < 20 else 1e-12)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    if total >= 20:
        assert factors[-1] == pytest.approx(0.1)


def test_a_constant_learning_rate_does_not_fall_after_its_warm_up() -> None:
    factors = [learning_rate_factor(step, 100, "constant") for step in range(1, 101)]
    assert factors == [*(step / 5 for step in range(1, 5)), *[1.0] * 96]


def test_the_schedule_reaches_the_optimizer() -> None:
    rates = {}
    for schedule in ("cosine", "constant"):
        shape = Training(**{k: SPEC[k] for k in SPEC if k in Training.model_fields})
        run = NeoxRun(shape.model_copy(update={"schedule": schedule}), "tiny")
        rates[schedule] = run.learning_rate(20)
    assert rates == pytest.approx({"cosine": 1e-3, "constant": 1e-2})


def test_shuffled_text_is_what_a_model_is_trained_on() -> None:
    assert (training_bytes(0.1, 1.0) != training_bytes(0.1)).any()
    assert sorted(training_bytes(0.1, 1.0)) == sorted(training_bytes(0.1))
