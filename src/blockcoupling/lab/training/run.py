"""A training from update to update: what trainings of all kinds of models have in common."""

from __future__ import annotations

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

from blockcoupling.errors import MeasurementError
from blockcoupling.lab.training.parallel import ALONE, Part
from blockcoupling.lab.training.states import MODEL, OPTIMIZER, State
from blockcoupling.progress import Progress

_NOISE = "noise"  # the state of the generator that models draw from while they train


class Run(ABC):
    """A training as far as it has come.

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
    """Longer gradients are scaled down to this."""
    advice = "a smaller learning_rate may help"
    """Where the loss is not finite any more."""

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
        """At an update, numbered from 1."""

    @abstractmethod
    def batch_loss(self, step: int) -> tuple[Tensor, float]:
        """What an update makes smaller, with its graph, and the loss in it, in nats."""

    @abstractmethod
    def save_model(self, directory: Path) -> None:
        """Write the model as an ordinary Hugging Face directory, with how it was made."""

    @abstractmethod
    def load_model(self, directory: Path) -> Mapping[str, Tensor]:
        """The weights that `save_model` wrote, by name."""

    def after_update(self) -> None:  # noqa: B027 (most trainings do nothing)
        """What is done once an update has been made."""

    def also_kept(self) -> dict[str, Tensor]:
        """What else has to be known to go on, as tensors by name."""
        return {}

    def also_loaded(self, kept: Mapping[str, Tensor], model: Path) -> None:  # noqa: B027 (as above)
        """Go on from what `also_kept` told, and from what lies beside the weights."""

    def update(self) -> None:
        """One more batch.

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
        """Let the model draw random numbers of its own, which go on from step to step."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._noise)
            yield
            self._noise = torch.get_rng_state()

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
        """Write all that `load` needs into a directory; see `States`."""
        self.save_model(directory / MODEL)
        tensors = {name: draw.get_state() for name, draw in self._draws.items()}
        tensors |= {_NOISE: self._noise, **self.also_kept()}
        for parameter, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"{parameter}.{name}": value for name, value in moments.items()}
        save_file(tensors, directory / OPTIMIZER)

    def load(self, state: State) -> None:
        """Go on from a state of the same training."""
        # Copies, into memory that torch has laid out itself: what the bits of products depend on.
        self.model.load_state_dict(self.load_model(state.path / MODEL))
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
    """One of several seeds that have nothing to do with each other, nor with `seed` itself."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
