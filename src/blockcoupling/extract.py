"""One job: a model at a checkpoint and a dataset of prompts → the SVD store, resumable."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from blockcoupling.atomic import replacing
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.instrument import Instrument, Settings
from blockcoupling.measurement import in_precision, resolve_device
from blockcoupling.models import load_model, read_record
from blockcoupling.progress import Progress
from blockcoupling.prompts import read_prompts
from blockcoupling.store import fingerprint, finished, merge, write_prompt
from blockcoupling.tokens import TokenizedPrompt, tokenize

logger = logging.getLogger(__name__)


def extract(
    model: Path | Mapping[str, Any],
    prompts: Path,
    parts: Path,
    out: Path,
    settings: Settings,
    *,
    k_when_smaller: str = "error",
    dtype: str = "float32",
    device: str = "auto",
    batch: int = 8,
) -> None:
    """Measure every prompt that is not measured yet, then join all of them into one store.

    Prompts are measured in batches of fixed composition; a prompt's store appears under its name
    only when it is whole. What the first batch decided (the method per block) is written beside
    them and holds for every batch, so that a job killed at any instant and run again ends with
    the same numbers.

    Args:
        model: a model record, or the JSON file that holds it.
        prompts: JSON lines with `id` and `text`.
        parts: directory for the per-prompt stores; kept, so that a rerun finds them.
        out: the store to write.
        settings: what to measure.
        k_when_smaller: what to do where k > d: "error", or "d" to take k = d.
        dtype: of the weights and products, "float32" or "float64".
        device: "auto", "cpu", "cuda", …
        batch: prompts measured together.

    Raises:
        UserError: for prompts or settings that do not fit the model; nothing has been measured.
        MeasurementError: naming model, block and prompt.
    """
    record = read_record(model) if isinstance(model, Path) else dict(model)
    loaded, tokenizer = load_model(record, device=resolve_device(device))
    loaded = in_precision(loaded, getattr(torch, dtype))
    wanted = [tokenize(tokenizer, p.text, p.id) for p in read_prompts(prompts)]
    if not wanted:
        raise UserError(f"{prompts} holds no prompt")
    identity = {
        "model": record.get("name"),
        "checkpoint": record.get("checkpoint"),
        "model_id": record.get("id") or record.get("path") or record.get("name"),
        "revision": record.get("revision"),
        "quantization": record.get("quantization"),
        "dtype": dtype,
        "batch": batch,
    }
    instrument = Instrument(loaded, settings, identity)
    dimension = instrument.blocks(wanted[0]).dimension
    if settings.k is not None and settings.k > dimension and k_when_smaller == "d":
        instrument.settings = replace(settings, k=dimension)
    instrument.check(wanted)

    expected = {
        p.id: fingerprint(
            settings=asdict(instrument.settings),
            identity=identity,
            record=record,
            input_ids=p.input_ids[0].tolist(),
        )
        for p in wanted
    }
    plan = _Plan(parts / "plan.json", fingerprint(all=expected))
    instrument.methods = plan.read()
    done = finished(parts, expected)
    _measure(instrument, wanted, parts, expected, done, batch, plan)
    merge(parts, out, expected)


def _measure(
    instrument: Instrument,
    wanted: Sequence[TokenizedPrompt],
    parts: Path,
    expected: Mapping[str, str],
    done: set[str],
    batch: int,
    plan: _Plan,
) -> None:
    if done:
        logger.info("%d of %d prompts are measured already", len(done), len(wanted))
    with Progress(len(wanted), "measuring", "prompt", done=len(done)) as progress:
        for start in range(0, len(wanted), batch):
            together = wanted[start : start + batch]
            if all(p.id in done for p in together):
                continue
            try:
                measured = instrument.measure(together)
            except MeasurementError as error:
                name = f"{instrument.identity['model']} at {instrument.identity['checkpoint']}"
                raise MeasurementError(f"model {name}, {error}") from error
            plan.write(instrument.methods)
            for prompt, ds in zip(together, measured, strict=True):
                if prompt.id not in done:
                    write_prompt(parts, ds, expected[prompt.id])
                    progress.advance()


class _Plan:
    """The methods chosen by the first batch, kept beside the prompts' stores.

    Args:
        path: the file.
        fingerprint: of the job; a plan of another job is not followed.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path, self._fingerprint = path, fingerprint

    def read(self) -> list[str] | None:
        if not self._path.is_file():
            return None
        plan = json.loads(self._path.read_text())
        return plan["methods"] if plan["fingerprint"] == self._fingerprint else None

    def write(self, methods: list[str] | None) -> None:
        if self.read() is None:
            with replacing(self._path) as fresh:
                fresh.write_text(json.dumps({"fingerprint": self._fingerprint, "methods": methods}))
