"""What jobs ask for: enough for a model of known size, and never less for a larger one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.needs import (
    UNKNOWN_SIZE,
    extract_needs,
    parameters,
    record_needs,
    reduce_needs,
    score_needs,
    train_needs,
)
from blockcoupling.study import Study
from blockcoupling.train.neox import new_model


def study(size=None, device="auto", **dataset):
    return Study(
        models={"m": {"id": "some/model", "parameters": size}},
        datasets={"d": {"name": "handwritten", **dataset}},
        extract={"device": device},
    )


def test_a_model_says_how_large_it_is():
    assert parameters(study(70_000_000), "m") == 70_000_000
    assert parameters(study(), "m") == UNKNOWN_SIZE


@pytest.mark.parametrize("shape", [(64, 2, 4), (128, 6, 4)])
def test_a_model_to_be_trained_is_counted(shape):
    width, blocks, heads = shape
    trained = Study(
        models={"m": {"train": {"hidden_size": width, "blocks": blocks, "heads": heads}}}
    )
    truth = sum(p.numel() for p in new_model(trained.models["m"].train).parameters())
    # Biases and norms are left out of the estimate: 13 d a block beside 12 d².
    assert parameters(trained, "m") == pytest.approx(truth, rel=0.05)


def test_seven_billion_parameters():
    needs = extract_needs(study(7_000_000_000), "m", "d")
    assert needs.mem_mb > 7e9 * 4 / 2**20  # the weights in float32, at least
    assert needs.threads > 1
    assert needs.gpus == 0
    on_gpu = extract_needs(study(7_000_000_000, device="cuda"), "m", "d")
    assert on_gpu.gpus == 1
    assert on_gpu.minutes < needs.minutes


def test_a_small_model_leaves_cores_to_others():
    assert extract_needs(study(100_000_000), "m", "d").threads == 1


@given(st.integers(10**5, 10**11), st.floats(1, 100))
def test_a_larger_model_never_asks_for_less_memory(size, factor):
    small, large = study(size), study(int(size * factor))
    for estimate in (record_needs, score_needs):
        assert estimate(large, "m").mem_mb >= estimate(small, "m").mem_mb
    assert extract_needs(large, "m", "d").mem_mb >= extract_needs(small, "m", "d").mem_mb
    assert reduce_needs(large, "m", "d").mem_mb >= reduce_needs(small, "m", "d").mem_mb


@given(st.integers(10**5, 10**11), st.integers(1, 10_000), st.integers(1, 10_000))
def test_more_prompts_never_ask_for_less_time(size, prompts, more):
    few, many = study(size, prompts=prompts), study(size, prompts=prompts + more)
    assert extract_needs(many, "m", "d").minutes >= extract_needs(few, "m", "d").minutes
    assert reduce_needs(many, "m", "d").minutes >= reduce_needs(few, "m", "d").minutes


def test_longer_training_asks_for_more_time():
    def minutes(steps):
        return train_needs(Study(models={"m": {"train": {"steps": steps}}}), "m").minutes

    assert minutes(100_000) > minutes(10_000) > 0
