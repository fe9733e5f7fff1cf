"""Small language models, trained from scratch on text that every Python installation carries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def train(
    spec: Mapping[str, Any], out_dir: Path | str, threads: int | None = None
) -> dict[int, Path]:
    """Train a model and save its checkpoints; see `blockcoupling.train.neox.train`."""
    from blockcoupling.train.neox import train

    return train(spec, out_dir, threads)
