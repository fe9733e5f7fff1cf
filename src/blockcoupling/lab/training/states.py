"""States of a training on disk, from which it resumes as if it had never stopped.

A state is a directory that appears whole: the model as an ordinary Hugging Face directory
(`model/`), the optimizer's tensors and the place in the data (`optimizer.safetensors`), and
`state.json`, which has its training, its step and the digests of its files.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from blockcoupling.atomic import replacing
from blockcoupling.digests import file_digest, json_digest

MODEL, OPTIMIZER, ABOUT = "model", "optimizer.safetensors", "state.json"

logger = logging.getLogger(__name__)


class State(NamedTuple):
    """A state on disk."""

    path: Path
    step: int
    loss: float | None
    """Loss of the last batch; None before the first."""


class States:
    """The states of one training.

    Args:
        directory: holds them, as `step{n}`, and as `towards{n}` the latest on the way to step n.
        training: everything that decides the weights (JSON values); states of another training are
            as good as absent.
    """

    def __init__(self, directory: Path | str, training: Mapping[str, Any]) -> None:
        self.directory = Path(directory)
        self._training = json_digest(training)

    def keep(
        self, place: Path, step: int, loss: float | None, write: Callable[[Path], None]
    ) -> None:
        """Save a state: `write` puts `model/` and the optimizer's file into a directory."""
        with replacing(place) as fresh:
            fresh.mkdir()
            write(fresh)
            about = {
                "training": self._training,
                "step": step,
                "loss": loss,
                "files": {str(p.relative_to(fresh)): file_digest(p) for p in _files(fresh)},
            }
            about["sha256"] = json_digest(about)
            (fresh / ABOUT).write_text(json.dumps(about, indent=1) + "\n")

    def place(self, step: int) -> Path:
        """Directory of the state after `step` updates."""
        return self.directory / f"step{step}"

    def on_the_way(self, step: int) -> Path:
        """Directory of the latest state on the way to `step`; one process writes it."""
        return self.directory / f"towards{step}"

    def at(self, step: int) -> State | None:
        """The state after `step` updates, if it exists and is undamaged."""
        found = self._read(self.place(step))
        return found if found is not None and found.step == step else None

    def nearest(self, step: int) -> State | None:
        """The latest undamaged state that is not after `step`."""
        known = [(self._step(path), path) for path in self.directory.glob("[!.]*/")]
        for before, path in sorted(known, reverse=True):
            if 0 <= before <= step and (found := self._read(path)) is not None:
                return found
        return None

    def done(self, step: int) -> None:
        """Delete the states on the way to a step whose state is saved."""
        shutil.rmtree(self.on_the_way(step), ignore_errors=True)

    def _about(self, path: Path) -> dict[str, Any]:
        try:
            about: dict[str, Any] = json.loads((path / ABOUT).read_text())
        except (OSError, ValueError):
            return {}
        recorded = about.pop("sha256", None) if isinstance(about, dict) else None
        return (
            about if recorded == json_digest(about) and about["training"] == self._training else {}
        )

    def _step(self, path: Path) -> int:
        return int(self._about(path).get("step", -1))

    def _read(self, path: Path) -> State | None:
        about = self._about(path)
        if not about:
            return None
        for name, wanted in about["files"].items():
            if not (path / name).is_file() or file_digest(path / name) != wanted:
                logger.warning("%s is damaged and passed over: %s", path, name)
                return None
        return State(path, about["step"], about["loss"])


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
