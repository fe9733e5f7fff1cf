"""A long measurement in parts that can be killed at any instant and run again.

Every kind of job is the same four things: a plan (what was decided on the way and holds for a
rerun), parts that appear whole, a fingerprint of what each one's numbers depend on, and a join of
all parts into one store. What differs between kinds is handed in.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.errors import MeasurementError
from blockcoupling.progress import Progress
from blockcoupling.store.parts import fingerprint, finished

logger = logging.getLogger(__name__)

Advance = Callable[[], object]


class Plan:
    """What a job has decided, kept beside its parts for when it is run again.

    Args:
        path: the file.
        fingerprint: of the job; a plan of another job is not followed.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path, self._fingerprint = path, fingerprint
        plan = json.loads(path.read_text()) if path.is_file() else {}
        same = plan.pop("fingerprint", None) == fingerprint
        self._decided: dict[str, Any] = plan if same else {}

    def get(self, name: str) -> Any:
        """What was decided; None where nothing was."""
        return self._decided.get(name)

    def decide(self, **decided: Any) -> None:
        """Write down what holds from now on (JSON values)."""
        self._decided |= decided
        with replacing(self._path) as fresh:
            fresh.write_text(json.dumps({"fingerprint": self._fingerprint, **self._decided}))


@dataclass(frozen=True)
class Job:
    """A job of any kind; `run` does what is missing.

    Attributes:
        model: what is measured, in words, for messages.
        parts: directory of the parts.
        expected: fingerprint by part, in the order of the joined store.
        measure: names of parts → their datasets; calls its second argument at every step where
            `steps` are given.
        write: (parts, name, dataset, fingerprint), whole or not at all.
        join: all parts → the store.
        what: the work, in words, for the progress bar: "measuring".
        unit: of a step.
        together: parts that are measured together, in the order of `expected`.
        steps: of each part; None: one, when it is written.
        needed: optional variables that a part must hold to be finished.
    """

    model: str
    parts: Path
    expected: Mapping[str, str]
    measure: Callable[[Sequence[str], Advance], Sequence[xr.Dataset]]
    write: Callable[[Path, str, xr.Dataset, str], object]
    join: Callable[[Path, Path, Mapping[str, str]], None]
    what: str
    unit: str = "prompt"
    together: int = 1
    steps: Mapping[str, int] | None = None
    needed: Sequence[str] = ()

    def run(self, out: Path) -> None:
        """Measure every part that is not finished, then join all of them into `out`.

        Raises:
            MeasurementError: naming the model, and what the measurement names.
        """
        names = list(self.expected)
        steps = self.steps or dict.fromkeys(names, 1)
        done = finished(self.parts, self.expected, self.needed)
        if done:
            logger.info("%d of %d prompts are measured already", len(done), len(names))
        before = sum(steps[name] for name in done)
        with Progress(sum(steps.values()), self.what, self.unit, done=before) as progress:
            for start in range(0, len(names), self.together):
                batch = names[start : start + self.together]
                if done.issuperset(batch):
                    continue
                try:
                    measured = self.measure(batch, progress.advance)
                except MeasurementError as error:
                    raise MeasurementError(f"model {self.model}, {error}") from error
                for name, ds in zip(batch, measured, strict=True):
                    if name not in done:
                        self.write(self.parts, name, ds, self.expected[name])
                        if self.steps is None:
                            progress.advance()
        self.join(self.parts, out, self.expected)


def fingerprints(
    tokens: Mapping[str, Sequence[int]], together: int, made_from: Mapping[str, Any]
) -> dict[str, str]:
    """What each part's numbers depend on: to the last bit, also on the parts beside it.

    Batches are measured whole, so that those beside one that is new or other cost nothing more.

    Args:
        tokens: ids of each part's text, by its name, in order.
        together: parts that are measured together.
        made_from: what all depend on (JSON values).
    """
    names, expected = list(tokens), {}
    for start in range(0, len(names), together):
        batch = names[start : start + together]
        ids = [list(tokens[name]) for name in batch]
        for place, name in enumerate(batch):
            expected[name] = fingerprint(**made_from, batch=ids, place=place)
    return expected
