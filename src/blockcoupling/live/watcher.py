"""Measure a model every few steps of its training, within a share of the training's time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from blockcoupling.catalog.entries import demand_names
from blockcoupling.config.measurement import kept_for
from blockcoupling.config.variants import DEFAULT_VARIANT, VARIANTS
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.live.kept import keep
from blockcoupling.live.untouched import bare, left_as_it_was
from blockcoupling.measurement.measure import measured, ready
from blockcoupling.measurement.prepare import Prepared
from blockcoupling.measurement.prompts import Prompt
from blockcoupling.reduce.summary import summary
from blockcoupling.store.svd import SVD

logger = logging.getLogger(__name__)

_S1 = "s_1 (median block)"  # its column in the summary
QUANTITIES = {
    "coupling": "coupling",
    "excess": "excess",
    "adjacent": "adjacent",
    "line_shape_score": "line_shape_score",
    "expodistance": "expodistance",
    "s_1": _S1,
}
"""What is reported of a step, each with its column in the summary of a measurement."""


class Watcher:
    """Measures a few prompts every `every` steps of a training.

    Call it with the number of the step, after the update. Weights, gradients, modes, random states
    and everything else that the training depends on stay as they are. Weights in float32 or
    float64 are measured in place, others on a float32 copy.

    In a training with several processes only the first one measures; the others get None.

    Args:
        model: the model that is trained; also compiled, or in DistributedDataParallel.
        prompts: texts to measure at; a few are enough.
        tokenizer: any callable text → input_ids, or → a mapping that holds them.
        images: for an image model, pixel values instead of prompts and tokenizer.
        every: steps from one measurement to the next.
        budget: largest share of the training's time that measuring may take. A step is skipped
            where the measurement before and this one would exceed it; only the first measurement,
            which shows what one costs, is always made. None: no limit.
        k: singular vectors to compare, at most the model's width.
        variant: of mis-coupling.
        store: directory that keeps every measurement: `STORE/step100/svd.zarr`, with its catalog
            entry; None: nothing is kept.
        name: of the model in the catalog.
        dataset: name of the prompts in the catalog.
        batch: prompts that go through a block together; None: by counts.
        settings: other settings of `bc.measure`: tokens, method, tolerance, …

    Attributes:
        history: what was reported, one mapping for each measurement, with `step`.
        skipped: how many measurements were skipped to stay within the budget.

    Raises:
        UserError: prompts or settings that do not fit the model, or sharded weights.

    Example:
        >>> watcher = bc.Watcher(model, ["Two roads"], tokenizer, every=100, k=5, budget=None)
        >>> for step in range(1, 201):  # of your training, after the update
        ...     values = watcher(step)
        >>> [line["step"] for line in watcher.history]
        [100, 200]
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: str | Iterable[str] | None = None,
        tokenizer: Callable[[str], Any] | None = None,
        *,
        images: Any = None,
        every: int = 100,
        budget: float | None = 0.02,
        k: int = 10,
        variant: str = DEFAULT_VARIANT,
        store: Path | str | None = None,
        name: str = "model",
        dataset: str = "watched",
        batch: int | None = None,
        **settings: Any,
    ) -> None:
        if every < 1:
            raise UserError(f"every = {every}: give a number of steps, 1 or more")
        if budget is not None and not 0 < budget <= 1:
            raise UserError(f"budget = {budget}: give a share of the time, above 0 and at most 1")
        if variant not in VARIANTS:
            raise UserError(f"unknown variant {variant!r}: choose from {', '.join(VARIANTS)}")
        demand_names([name, dataset])
        self.every, self.budget = every, budget
        self.store = None if store is None else Path(store)
        self.history: list[dict[str, float]] = []
        self.skipped = 0
        self._model, self._tokenizer, self._images = model, tokenizer, images
        self._prompts = prompts if prompts is None or isinstance(prompts, str) else list(prompts)
        self._k, self._variant, self._batch = k, variant, batch
        self._settings = {"k": k, "readout": 0, **kept_for([variant]), **settings}
        self._facets = {"model": name, "dataset": dataset}
        self._begun: float | None = None
        self._spent, self._last = 0.0, 0.0
        inner = bare(model)
        with left_as_it_was(inner):
            self._ready(inner)

    def __call__(self, step: int) -> dict[str, float] | None:
        """Measure, if it is time to.

        Args:
            step: number of updates so far.

        Returns:
            `coupling`, `excess`, `adjacent`, `line_shape_score`, `expodistance` and `s_1`, means
            over the prompts (those that are undefined are omitted), and what measuring took:
            `seconds`, and `share` of the time since the first call. None where it is not time, the
            budget is used up, or the measurement failed (a warning says why).

        Raises:
            UserError: the model cannot be measured any more, such as one with sharded weights.
        """
        now = time.perf_counter()
        self._begun = now if self._begun is None else self._begun
        if step % self.every or not _first_process():
            return None
        if not self._affordable(now):
            self.skipped += 1
            return None
        try:
            values = self._measured(step)
        except (MeasurementError, torch.OutOfMemoryError, OSError) as error:
            logger.warning("coupling at step %d was not measured: %s", step, error)
            values = None
        after = time.perf_counter()
        self._last = after - now
        self._spent += self._last
        if values is None:
            return None
        share = self._spent / (after - self._begun)
        values |= {"seconds": self._last, "share": share}
        self.history.append({"step": step, **values})
        return values

    def _affordable(self, now: float) -> bool:
        """Whether this measurement, if it takes as long as the last one, is within the budget."""
        if self.budget is None or self._spent == 0 or self._begun is None:
            return True
        return self._spent + self._last <= self.budget * (now - self._begun + self._last)

    def _measured(self, step: int) -> dict[str, float]:
        model = bare(self._model)
        with left_as_it_was(model):
            prepared, prompts = self._ready(model)
            parts = measured(prepared, prompts, self._batch)
        if self.store is not None:
            keep(self.store, parts, {**self._facets, "checkpoint": f"step{step}"})
        ds = SVD.combine(parts)
        table = summary(ds, ds.sizes["k"], self._variant)
        means = {name: float(table[column].mean()) for name, column in QUANTITIES.items()}
        return {name: value for name, value in means.items() if math.isfinite(value)}

    def _ready(self, model: nn.Module) -> tuple[Prepared, list[Prompt]]:
        given = self._tokenizer, self._prompts, self._images, self._settings
        return ready(model, *given, k_when_smaller="d")


def _first_process() -> bool:
    return not (distributed.is_available() and distributed.is_initialized()) or (
        distributed.get_rank() == 0
    )
