"""What jobs of the laboratory ask for."""

import pytest

from blockcoupling.config.study import Study
from blockcoupling.lab.needs import checkpoint_needs, train_needs
from blockcoupling.lab.training.neox import new_model
from blockcoupling.study.sizes import parameters


@pytest.mark.parametrize("shape", [(64, 2, 4), (128, 6, 4)])
def test_a_model_to_be_trained_is_counted(shape):
    width, blocks, heads = shape
    trained = Study(
        models={"m": {"train": {"hidden_size": width, "blocks": blocks, "heads": heads}}}
    )
    truth = sum(p.numel() for p in new_model(trained.models["m"].train).parameters())
    # Biases and norms are not in the estimate: 13 d per block, compared with 12 d².
    assert parameters(trained, "m") == pytest.approx(truth, rel=0.05)


def test_longer_training_asks_for_more_time():
    def minutes(steps):
        return train_needs(Study(models={"m": {"train": {"steps": steps}}}), "m").minutes

    assert minutes(100_000) > minutes(10_000) > 0


def test_a_checkpoint_is_written_from_a_state_or_trained_to():
    study = Study(models={"m": {"train": {"steps": 100_000}, "checkpoints": [0, 100_000]}})
    whole, kept = train_needs(study, "m"), checkpoint_needs(study, "m")
    assert kept.minutes == whole.minutes
    assert 0 < kept.expected < 0.01 * whole.expected
    assert kept.disk_mb == -(-4 * parameters(study, "m") // 2**20)
    assert whole.disk_mb == -(-3 * 3 * 4 * parameters(study, "m") // 2**20)


def test_a_training_that_is_shared_takes_a_gpu_for_each_process():
    def needs(device, **shape):
        study = Study(
            models={"m": {"train": {"architecture": "vit", **shape}}},
            datasets={"d": {"images": {"source": "digits"}}},
            extract={"device": device},
        )
        return train_needs(study, "m")

    alone, four = (needs("cuda", processes=each) for each in (1, 4))
    assert (alone.gpus, four.gpus) == (1, 4)
    # Operations are shared; what a process starts with, and its calls, are not.
    assert alone.starting < four.expected < alone.expected
    assert needs("cpu", processes=4).threads == four.threads == 4
    assert needs("cpu").gpus == 0
    # Language models are trained on processors.
    study = Study(models={"m": {"train": {"steps": 1}}}, extract={"device": "cuda"})
    assert train_needs(study, "m").gpus == 0
