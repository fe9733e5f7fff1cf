"""Coupling in transformers' Trainer: logged like the loss, whatever it reports to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import distributed
from transformers import TrainerCallback

from blockcoupling.errors import UserError
from blockcoupling.live.untouched import SHARDED
from blockcoupling.live.watcher import Watcher


def watch(
    trainer: Any,
    prompts: str | Iterable[str] | None = None,
    *,
    tokenizer: Callable[[str], Any] | None = None,
    images: Any = None,
    every: int = 100,
    budget: float | None = 0.02,
    store: Path | str | None = "coupling",
    name: str | None = None,
    **options: Any,
) -> Watcher:
    """Measure coupling while transformers' Trainer trains, and log it with `trainer.log`.

    Before the first update and after every `every`-th, `coupling/coupling`, `coupling/excess`,
    `coupling/adjacent`, `coupling/line_shape_score`, `coupling/expodistance`, `coupling/s_1`,
    `coupling/seconds` and `coupling/share` are logged: TensorBoard, Weights & Biases, trackio and
    `trainer.state.log_history` get them. The trained weights are bit-equal to those of a training
    without it.

    In a training with several processes the first one measures, and all of them log.

    Args:
        trainer: the Trainer, before `trainer.train()`.
        prompts: texts to measure at; a few are enough.
        tokenizer: any callable text → input_ids; None: the trainer's `processing_class`.
        images: for an image model, pixel values instead of prompts and tokenizer.
        every: steps from one measurement to the next.
        budget: largest share of the training's time that measuring may take; a step that would
            exceed it is skipped. None: no limit.
        store: directory that keeps the measurements, relative to the trainer's `output_dir`;
            None: nothing is kept.
        name: of the model in the catalog; None: the name of `output_dir`.
        options: other arguments of `Watcher`: k, variant, dataset, batch, tokens, …

    Returns:
        The watcher, whose `history` has what was logged.

    Raises:
        UserError: prompts or settings that do not fit the model, or a training by FSDP or ZeRO-3.

    Example:
        >>> watcher = bc.watch(trainer, ["The capital of France is"], tokenizer=tokenizer, k=5)
        >>> trainer.train()  # doctest: +SKIP
    """
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3):
        raise UserError(SHARDED)
    output = Path(trainer.args.output_dir)
    watcher = Watcher(
        trainer.model,
        prompts,
        tokenizer if tokenizer is not None or images is not None else trainer.processing_class,
        images=images,
        every=every,
        budget=budget,
        store=None if store is None else output / store,
        name=name or re.sub(r"^\W+|[^\w.-]+", "-", output.resolve().name).strip("-") or "model",
        **options,
    )
    trainer.add_callback(_Watch(trainer, watcher))
    return watcher


class _Watch(TrainerCallback):
    def __init__(self, trainer: Any, watcher: Watcher) -> None:
        self._trainer, self._watcher = trainer, watcher

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the untrained model; a resumed one was measured when it was saved."""
        if state.global_step == 0:
            self._log(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure after an update."""
        self._log(state, control)

    def _log(self, state: Any, control: Any) -> None:
        if state.global_step % self._watcher.every:
            return
        values = None
        try:
            values = self._watcher(state.global_step)
        finally:  # whatever happens on the first process, the others do not wait for it
            values = _of_first_process(values)
        if values is not None:
            due = control.should_log  # logging resets it, and the loss would not be logged
            self._trainer.log({f"coupling/{name}": value for name, value in values.items()})
            control.should_log = due


def _of_first_process(values: dict[str, float] | None) -> dict[str, float] | None:
    """What the first process measured, on all of them, so that all log and stop the same."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    shared = [values]
    distributed.broadcast_object_list(shared, src=0)
    return shared[0]
