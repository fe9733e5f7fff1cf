"""A long measurement in parts that can be killed at any instant and resumed.

A job of any kind measures the batches that `batches` yields, writes the `new` parts of each, and
joins all parts in the end. A part appears whole or not at all, with a fingerprint of everything
that its numbers depend on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.errors import MeasurementError
from blockcoupling.progress import Progress
from blockcoupling.store.parts import fingerprint, finished

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The parts of a job, and which of them are missing.

    Attributes:
        model: the model's name, for messages.
        parts: directory of the parts.
        expected: fingerprint by part, in the order of the joined store.
        batch: parts that are measured together, in the order of `expected`.
        needed: optional variables without which a part is not finished.
    """

    model: str
    parts: Path
    expected: Mapping[str, str]
    batch: int = 1
    needed: Sequence[str] = ()

    @cached_property
    def done(self) -> set[str]:
        """Names of the parts that were finished when the job started."""
        done = finished(self.parts, self.expected, self.needed)
        if done:
            logger.info("%d of %d prompts are measured already", len(done), len(self.expected))
        return done

    def batches(self) -> Iterator[list[str]]:
        """Names of the parts to measure, batch by batch.

        Batches keep their composition, so that a resumed job does the same arithmetic.
        """
        names = list(self.expected)
        for start in range(0, len(names), self.batch):
            batch = names[start : start + self.batch]
            if not self.done.issuperset(batch):
                yield batch

    def new(
        self, batch: Sequence[str], measured: Sequence[xr.Dataset]
    ) -> Iterator[tuple[str, xr.Dataset, str]]:
        """Name, dataset and fingerprint of each part in a measured batch that is to be written."""
        for name, ds in zip(batch, measured, strict=True):
            if name not in self.done:
                yield name, ds, self.expected[name]

    @contextmanager
    def progress(
        self, what: str, unit: str = "prompt", steps: Mapping[str, int] | None = None
    ) -> Iterator[Progress]:
        """Show progress while measuring; errors of measurement name the model.

        Args:
            what: the work: "measuring".
            unit: of a step.
            steps: how many each part has; None: one.

        Raises:
            MeasurementError: naming the model.
        """
        steps = steps or dict.fromkeys(self.expected, 1)
        before = sum(steps[name] for name in self.done)
        try:
            with Progress(sum(steps.values()), what, unit, done=before) as progress:
                yield progress
        except MeasurementError as error:
            raise MeasurementError(f"model {self.model}, {error}") from error


def fingerprints(
    tokens: Mapping[str, Sequence[Any]], batch: int, provenance: Mapping[str, Any]
) -> dict[str, str]:
    """A fingerprint of what each part's numbers depend on, including the other parts of its batch.

    Args:
        tokens: token ids of each part's text, by its name, in order.
        batch: parts that are measured together.
        provenance: what all parts depend on (JSON values).
    """
    names, expected = list(tokens), {}
    for start in range(0, len(names), batch):
        together = names[start : start + batch]
        ids = [list(tokens[name]) for name in together]
        for place, name in enumerate(together):
            expected[name] = fingerprint(**provenance, batch=ids, place=place)
    return expected


def read_plan(path: Path, job: str) -> dict[str, Any]:
    """What an interrupted job decided, so that it is resumed in the same way.

    Args:
        path: the file.
        job: fingerprint of the job; the plan of a different job is not followed.
    """
    plan = json.loads(path.read_text()) if path.is_file() else {}
    return plan if plan.pop("fingerprint", None) == job else {}


def write_plan(path: Path, job: str, **decided: Any) -> None:
    """Write down what a job decided (JSON values); see `read_plan`."""
    with replacing(path) as fresh:
        fresh.write_text(json.dumps({"fingerprint": job, **decided}))
