"""Training from update to update, shared by all kinds of models."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import blockcoupling
from blockcoupling.digests import file_digest
from blockcoupling.errors import MeasurementError
from blockcoupling.lab.training.parallel import ALONE, Part
from blockcoupling.lab.training.states import MODEL, OPTIMIZER, State
from blockcoupling.progress import Progress

_NOISE = "noise"  # the state of the generator that models draw from while they train


class Run(ABC):
    """The state of a training.

    Args:
        name: of the model, for messages.
        model: the untrained one, in training mode.
        optimizer: of its parameters.
        total: updates of the whole training.
        seed: of everything that is drawn.
        draws: generators that say what else is random, by the name that a state keeps them under.
        part: that this process has of each batch.

    Attributes:
        model: as it is after `step` updates.
        loss: of the last batch, in nats, without what is added to it; None before the first.
    """

    gradient_norm = math.inf
    """Largest norm of the gradient; longer gradients are scaled down."""
    advice = "a smaller learning_rate may help"
    """Advice for a loss that is not finite."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        total: int,
        seed: int,
        draws: Mapping[str, torch.Generator],
        part: Part = ALONE,
    ) -> None:
        self.name, self.part = name, part
        self.model: Any = model
        self.step = 0
        self.loss: float | None = None
        self._optimizer, self._total, self._draws = optimizer, total, dict(draws)
        self._noise = torch.Generator().manual_seed(another(seed, 1)).get_state()

    @abstractmethod
    def learning_rate(self, step: int) -> float:
        """Learning rate at an update, numbered from 1."""

    @abstractmethod
    def batch_loss(self, step: int) -> tuple[Tensor, float]:
        """The objective of an update with its graph, and its loss in nats without penalties."""

    @abstractmethod
    def save_model(self, directory: Path) -> None:
        """Write the model as an ordinary Hugging Face directory, with its provenance."""

    def after_update(self) -> None:  # noqa: B027 (most trainings do nothing)
        """Called after each update."""

    def also_kept(self) -> dict[str, Tensor]:
        """Further state that resuming needs, as tensors by name."""
        return {}

    def also_loaded(self, kept: Mapping[str, Tensor], model: Path) -> None:  # noqa: B027 (as above)
        """Restore the state of `also_kept`, and the files saved with the weights."""

    def update(self) -> None:
        """Train on one more batch.

        Raises:
            MeasurementError: the loss is not finite any more.
        """
        step = self.step + 1
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        loss, value = self.batch_loss(step)
        for each in (loss.item(), value):
            if not math.isfinite(each):
                raise MeasurementError(
                    f"training {self.name}: the loss is {each} at step {step}; {self.advice}"
                )
        self._optimizer.zero_grad()
        loss.backward()
        self.part.average_gradients(self.model)
        if self.gradient_norm < math.inf:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.gradient_norm)
        self._optimizer.step()
        self.step, self.loss = step, value
        self.after_update()

    @contextmanager
    def random(self) -> Iterator[None]:
        """Use the training's own random state within the model, continued from step to step."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._noise)
            yield
            self._noise = torch.get_rng_state()

    def write_facts(self, directory: Path, **own: Any) -> None:
        """Write into `training.json` how the weights in a directory were made.

        Args:
            directory: of the saved model.
            own: facts of this kind of training.
        """
        facts = {
            "step": self.step,
            **own,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "training_loss": self.loss,
            "blockcoupling": blockcoupling.__version__,
            "torch": torch.__version__,
            # The one small file that differs wherever the weights do.
            "weights_sha256": file_digest(directory / "model.safetensors"),
        }
        (directory / "training.json").write_text(json.dumps(facts, indent=1) + "\n")

    def until(self, step: int) -> Iterator[None]:
        """Make the updates up to a step, pausing after each."""
        shown = self.part.rank == 0
        work = Progress(self._total, f"training {self.name}", "step", self.step, shown)
        with work as progress:
            while self.step < step:
                self.update()
                progress.advance(f"loss {self.loss:.3f}")
                yield

    def save(self, directory: Path) -> None:
        """Write everything that `load` needs into a directory; see `States`."""
        self.save_model(directory / MODEL)
        tensors = {name: draw.get_state() for name, draw in self._draws.items()}
        tensors |= {_NOISE: self._noise, **self.also_kept()}
        for parameter, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"{parameter}.{name}": value for name, value in moments.items()}
        save_file(tensors, directory / OPTIMIZER)

    def load(self, state: State) -> None:
        """Resume from a state of the same training."""
        # Copies, into memory that torch has laid out itself: what the bits of products depend on.
        saved = type(self.model).from_pretrained(state.path / MODEL, use_safetensors=True)
        self.model.load_state_dict(saved.state_dict())
        tensors = {name: t.clone() for name, t in load_file(state.path / OPTIMIZER).items()}
        for name, draw in self._draws.items():
            draw.set_state(tensors.pop(name))
        self._noise = tensors.pop(_NOISE)
        moments: dict[int, dict[str, Tensor]] = {}
        for key in [key for key in tensors if key.partition(".")[0].isdigit()]:
            parameter, _, name = key.partition(".")
            moments.setdefault(int(parameter), {})[name] = tensors.pop(key)
        groups: Any = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.also_loaded(tensors, state.path / MODEL)
        self.step, self.loss = state.step, state.loss


def another(seed: int, number: int) -> int:
    """One of several seeds that are independent of each other and of `seed`."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
