"""An image model trained on GPUs, where there are any, in bfloat16: it learns, and sharing is fair.

BLOCKCOUPLING_DEVICE=cpu tries the tests themselves.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from blockcoupling.lab.training import train

GPUS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not GPUS and os.environ.get("BLOCKCOUPLING_DEVICE") != "cpu", reason="no GPU here"
    ),
]
SPEC: dict[str, Any] = {
    "name": "tiny",
    "architecture": "vit",
    "images": {"source": "digits"},
    "patch": 2,
    "hidden_size": 48,
    "blocks": 4,
    "heads": 3,
    "batch": 64,
    "epochs": 12,
    "warmup": 2,
    "learning_rate": 2.0e-3,
    "initializer_range": 0.1,
    "augmentation": {
        "crop": 1,
        "flip": False,
        "randaugment": 0,
        "erasing": 0,
        "mixup": 0,
        "cutmix": 0,
    },
    "checkpoints": [12],
}


def last(directory: Path, **changed: Any) -> dict[str, float]:
    (path,) = train(SPEC | changed, directory).values()
    row: dict[str, float] = json.loads((path / "training.json").read_text())["log"][-1]
    return row


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return last(tmp_path_factory.mktemp("alone"))


def test_it_learns(alone: dict[str, float]) -> None:
    assert alone["watched_accuracy"] > 0.7  # 0.1 is chance


@pytest.mark.skipif(GPUS == 1, reason="one GPU here")
def test_shared_by_all_of_them(alone: dict[str, float], tmp_path: Path) -> None:
    shared = last(tmp_path, processes=2)
    # Products rounded to 8 bits are added up in another order; after 264 updates that is seen.
    assert shared["loss"] == pytest.approx(alone["loss"], rel=0.05)
