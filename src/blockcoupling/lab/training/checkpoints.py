"""Checkpoints of a training, computed from the nearest saved state or from the start."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockcoupling.atomic import replacing
from blockcoupling.config.models import TrainedModel, Training, unit
from blockcoupling.config.section import parse
from blockcoupling.config.vision import VisionTraining
from blockcoupling.lab.training.states import MODEL, States
from blockcoupling.progress import plain_libraries
from blockcoupling.sources.corpus import corpus

if TYPE_CHECKING:
    from blockcoupling.lab.training.parallel import Part
    from blockcoupling.lab.training.run import Run

SECONDS_BETWEEN_STATES = 60.0
TRAINED = "trained.json"


def train(
    spec: Mapping[str, Any],
    out_dir: Path | str,
    threads: int | None = None,
    states: Path | str | None = None,
) -> dict[int, Path]:
    """Train a model and save its checkpoints as Hugging Face directories.

    A language model on the corpus, an image model on labelled images. The same seed on the same
    machine, with the same number of threads, gives the same weights to the last bit, whether or not
    the training was interrupted.

    Args:
        spec: `Study.train_spec(model)`: `name`, the keys of `Training` or, with `architecture:
            vit`, of `VisionTraining`, and `checkpoints`, the steps or epochs to keep; checkpoint n
            is the model after n of them, 0 the untrained one.
        out_dir: Checkpoints go to `out_dir/step{n}` or `epoch{n}`, each appearing whole or not at
            all: the weights in safetensors, the tokenizer or image processor, and `training.json`
            with how it was made.
        threads: Threads that torch uses; None leaves torch's own choice (OMP_NUM_THREADS).
        states: Directory of the training's states, as `keep_states` has it, to resume from. None:
            the training begins at the start, and only its checkpoints are kept.

    Returns:
        The directory of each checkpoint.

    Raises:
        UserError: the description is inconsistent; every mistake is listed.
        MeasurementError: the loss is not finite any more.
    """
    name, section = _parsed(spec)
    kind = _kind(section.train, name)
    marks = section.checkpoints
    places = {mark: Path(out_dir) / f"{unit(section.train)}{mark}" for mark in marks}
    if states is None:
        _shared(_save, kind, places, threads)
        return places
    kept = _kept(kind, marks, states, threads)
    for mark, place in places.items():
        with replacing(place) as fresh:
            shutil.copytree(kept.place(mark * kind.updates) / MODEL, fresh)
    return places


def keep_states(spec: Mapping[str, Any], states: Path | str, threads: int | None = None) -> None:
    """Train a model and save its state at every checkpoint, so that training can resume from it.

    A checkpoint that is added later costs only the updates since the previous state. A state is
    also saved every minute: a killed training resumes from the latest one, with the same result as
    an uninterrupted training.

    Args:
        spec: as for `train`.
        states: directory of the states; at the end it also has `trained.json`, the description of
            the training.
        threads: as for `train`.

    Raises:
        UserError, MeasurementError: as `train`.
    """
    name, section = _parsed(spec)
    kept = _kept(_kind(section.train, name), section.checkpoints, states, threads)
    with replacing(kept.directory / TRAINED) as fresh:
        about = {"name": name, "training": section.train.model_dump(mode="json")}
        fresh.write_text(json.dumps(about, indent=1) + "\n")


def _parsed(spec: Mapping[str, Any]) -> tuple[str, TrainedModel]:
    about = dict(spec)
    name, checkpoints = about.pop("name", "model"), about.pop("checkpoints", [])
    where = f"the training of {name}"
    return name, parse(TrainedModel, {"train": about, "checkpoints": checkpoints}, where)


@dataclass(frozen=True)
class _Kind:
    """A training before its first update.

    Attributes:
        shape: what is trained, and how.
        name: of the model.
        begin: makes it, for a part of each batch.
        identity: everything that decides the weights at each step.
        updates: from one step, or epoch, to the next.
    """

    shape: Training | VisionTraining
    name: str
    begin: Callable[[Part], Run]
    identity: dict[str, Any]
    updates: int = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process reads its data itself: they may be too large to be sent.
        return _kind, (self.shape, self.name)


def _kind(shape: Training | VisionTraining, name: str) -> _Kind:
    identity = {"training": shape.model_dump(mode="json"), "torch": version("torch")}
    if isinstance(shape, Training):
        identity |= {"corpus": corpus().digest}
        return _Kind(shape, name, partial(_neox, shape, name), identity)
    from blockcoupling.lab.training.image_data import image_data
    from blockcoupling.lab.training.vit import VitRun, updates_per_epoch

    data = image_data(shape)
    return _Kind(
        shape,
        name,
        partial(VitRun, shape, name, data),
        identity | {"images": data.digest},
        updates_per_epoch(shape, len(data.labels)),
    )


def _neox(shape: Training, name: str, _: Part) -> Run:
    from blockcoupling.lab.training.neox import NeoxRun  # with torch: where there is work to do

    return NeoxRun(shape, name)


def _kept(kind: _Kind, marks: Iterable[int], states: Path | str, threads: int | None) -> States:
    """The states at all checkpoints; missing ones are computed."""
    kept = States(states, kind.identity)
    missing = [mark for mark in marks if kept.at(mark * kind.updates) is None]
    if missing:
        _shared(_keep, kind, missing, threads, kept)
    return kept


def _shared(work: Callable[..., None], kind: _Kind, *arguments: Any) -> None:
    from blockcoupling.lab.training.parallel import share  # with torch: where there is work to do

    share(kind.shape.processes, work, kind, *arguments)


def _save(part: Part, kind: _Kind, places: Mapping[int, Path], threads: int | None) -> None:
    runs = _trained(part, kind, places, threads)
    for place, run in zip(places.values(), runs, strict=True):
        if part.rank == 0:
            with replacing(place) as fresh:
                run.save_model(fresh)


def _keep(part: Part, kind: _Kind, marks: Iterable[int], threads: int | None, kept: States) -> None:
    for run in _trained(part, kind, marks, threads, kept):
        if part.rank == 0:
            kept.keep(kept.place(run.step), run.step, run.loss, run.save)
            kept.done(run.step)


def _trained(
    part: Part,
    kind: _Kind,
    marks: Iterable[int],
    threads: int | None,
    kept: States | None = None,
) -> Iterator[Run]:
    """The training at each of the steps or epochs, in their order."""
    import torch

    plain_libraries()
    before = torch.get_num_threads()
    torch.set_num_threads(threads or max(1, before // part.count))
    try:
        run = kind.begin(part)
        for step in (mark * kind.updates for mark in marks):
            part.wait()  # until what the first writes is there for all
            found = None if kept is None else kept.nearest(step)
            if found is not None and found.step > run.step:
                run.load(found)
            written = time.monotonic()
            for _ in run.until(step):
                waited = time.monotonic() - written
                if kept is not None and part.rank == 0 and waited > SECONDS_BETWEEN_STATES:
                    kept.keep(kept.on_the_way(step), run.step, run.loss, run.save)
                    written = time.monotonic()
            yield run
    finally:
        torch.set_num_threads(before)
