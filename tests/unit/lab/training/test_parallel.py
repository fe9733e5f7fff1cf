"""A training that several processes share is the one of a single process."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_vit import TINY

from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.lab.training import keep_states, train
from blockcoupling.lab.training.parallel import ALONE, Part, share

SPEC = TINY | {"image_count": 130, "blocks": 3, "epochs": 2, "dropout": 0, "checkpoints": [0, 1, 2]}
THREE = SPEC | {"processes": 3}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return train(THREE, tmp_path_factory.mktemp("shared"), threads=1)


def log(path: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((path / "training.json").read_text())["log"]
    return rows


@pytest.mark.slow
def test_its_weights_are_those_of_one_process(shared: dict[int, Path], tmp_path: Path):
    for epoch, path in train(SPEC, tmp_path, threads=1).items():
        alone, together = (load_file(each / "model.safetensors") for each in (path, shared[epoch]))
        for name in alone:
            # A key's bias adds the same to all scores of a query: its gradient is nothing but
            # rounding, which AdamW makes as long as any other.
            if not name.endswith("key.bias"):
                # Four updates of at most 0.01; sums of 60 rounded in another order, 2^-24 each.
                torch.testing.assert_close(together[name], alone[name], rtol=0, atol=2e-6)
        assert len(log(path)) == epoch
        for row, own in zip(log(shared[epoch]), log(path), strict=True):
            assert row == pytest.approx(own, rel=1e-5)


@pytest.mark.slow
def test_it_goes_on_from_its_states_to_the_same_bits(shared: dict[int, Path], tmp_path: Path):
    keep_states(THREE | {"checkpoints": [1]}, tmp_path / "states", threads=1)
    kept = train(THREE, tmp_path / "out", threads=1, states=tmp_path / "states")
    for epoch, path in shared.items():
        first, second = (load_file(each / "model.safetensors") for each in (path, kept[epoch]))
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"processes": 7}, "batch 60 is not a multiple of processes = 7"),
        ({"processes": 2, "dropout": 0.1}, "dropout cannot be shared by several processes"),
        ({"processes": 2, "image_count": 50}, "batch = 60 is more than the 50 images"),
    ],
)
def test_what_cannot_be_shared_is_refused(tmp_path: Path, wrong: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        train(SPEC | wrong, tmp_path)


def test_a_gpu_for_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="processes = 3, but each takes a GPU, and there are 2"):
        train(THREE, tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [Part(rank, 3).device for rank in range(3)] == ["cuda:0", "cuda:1", "cuda:2"]


def test_parts_are_the_whole():
    batch = torch.arange(60)
    parts = [Part(rank, 3).of(batch) for rank in range(3)]
    assert [len(part) for part in parts] == [20] * 3
    assert torch.equal(torch.cat(parts), batch)
    assert torch.equal(ALONE.of(batch), batch)
    assert torch.equal(ALONE.summed(batch), batch)


def has_no_memory(part: Part) -> None:
    if part.rank:
        raise MemoryError("none left")
    part.summed(torch.ones(1))


def is_killed(part: Part) -> None:
    if part.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    part.summed(torch.ones(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "reason"), [(has_no_memory, "MemoryError: none left"), (is_killed, "signal SIGKILL")]
)
def test_the_others_do_not_wait_for_one_that_failed(work: Any, reason: str):
    with pytest.raises(MeasurementError, match=f"of 2 processes, one failed: .*{reason}"):
        share(2, work)
