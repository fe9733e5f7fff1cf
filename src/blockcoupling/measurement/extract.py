"""One job: a model at a checkpoint and a dataset of prompts → the SVD store, resumable."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from blockcoupling.atomic import replacing
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.measurement.instrument import Instrument, Settings
from blockcoupling.progress import Progress
from blockcoupling.sources.models import load_model, load_streamed, read_record
from blockcoupling.sources.prompts import read_prompts
from blockcoupling.store.stores import fingerprint, finished, merge, write_prompt
from blockcoupling.transformer.streaming import StreamedModel
from blockcoupling.transformer.tokens import TokenizedPrompt, tokenize_prompts

logger = logging.getLogger(__name__)

# What of a model's record decides its numbers; a corrected fact measures nothing anew.
_WEIGHTS = (
    "source",
    "id",
    "path",
    "revision",
    "step",
    "init_seed",
    "dtype",
    "quantization",
    "tokenizer",
)


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
    batch: int | None = None,
    stream: bool = False,
) -> None:
    """Measure every prompt that is not measured yet, then join all of them into one store.

    Prompts are measured in batches of fixed composition; a prompt's store appears under its name
    only when it is whole. What was decided on the way (prompts in a batch, the method per block) is
    written beside them and holds for every batch, so that a job killed at any instant and run again
    ends with the same numbers.

    Args:
        model: a model record, or the JSON file that holds it.
        prompts: JSON lines with `id` and `text`.
        parts: directory for the per-prompt stores; kept, so that a rerun finds them.
        out: the store to write.
        settings: what to measure.
        k_when_smaller: what to do where k > d: "error", or "d" to take k = d.
        dtype: of the weights and products, "float32" or "float64".
        device: "auto", "cpu", "cuda", …
        batch: prompts measured together; None: as many as half of the free memory holds, 1 … 16.
        stream: have one block's weights in memory at a time.

    Raises:
        UserError: for prompts or settings that do not fit the model; nothing has been measured.
        MeasurementError: naming model, block and prompt.
    """
    record = read_record(model) if isinstance(model, Path) else dict(model)
    loaded: StreamedModel | nn.Module
    if stream:
        loaded, tokenizer = load_streamed(record, device, dtype)
    else:
        loaded, tokenizer = load_model(record, device, dtype)
    wanted = tokenize_prompts(tokenizer, ((p.id, p.text) for p in read_prompts(prompts)), loaded)
    if not wanted:
        raise UserError(f"{prompts} holds no prompt")
    identity = {
        "model": record.get("name"),
        "checkpoint": record.get("checkpoint"),
        "model_id": record.get("id") or record.get("path") or record.get("name"),
        "revision": record.get("revision"),
        "quantization": record.get("quantization"),
        "dtype": dtype,
    }
    instrument = Instrument.of(loaded, settings, identity)
    dimension = instrument.blocks(wanted[0]).dimension
    if settings.k is not None and settings.k > dimension and k_when_smaller == "d":
        instrument.settings = replace(settings, k=dimension)
    k = instrument.check(wanted)

    expected = {
        p.id: fingerprint(
            settings=asdict(instrument.settings),
            identity=identity,
            weights={key: record.get(key) for key in _WEIGHTS},
            input_ids=p.input_ids[0].tolist(),
        )
        for p in wanted
    }
    plan = _Plan(parts / "plan.json", fingerprint(all=expected, batch=batch))
    if plan.batch is None:
        plan.write(batch or instrument.prompts_at_once(wanted, k), None)
    _measure(instrument, wanted, parts, expected, plan)
    merge(parts, out, expected)


def _measure(
    instrument: Instrument,
    wanted: Sequence[TokenizedPrompt],
    parts: Path,
    expected: Mapping[str, str],
    plan: _Plan,
) -> None:
    done = finished(parts, expected)
    instrument.methods = plan.methods
    batch = plan.batch or 1
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
            if plan.methods is None:
                plan.write(batch, instrument.methods)
            for prompt, ds in zip(together, measured, strict=True):
                if prompt.id not in done:
                    write_prompt(parts, ds, expected[prompt.id])
                    progress.advance()


class _Plan:
    """What a job has decided, kept beside the prompts' stores for when it is run again.

    Args:
        path: the file.
        fingerprint: of the job; a plan of another job is not followed.

    Attributes:
        batch: prompts measured together, once decided.
        methods: method per block, once the first batch has chosen.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path, self._fingerprint = path, fingerprint
        plan = json.loads(path.read_text()) if path.is_file() else {}
        same = plan.get("fingerprint") == fingerprint
        self.batch: int | None = plan["batch"] if same else None
        self.methods: list[str] | None = plan["methods"] if same else None

    def write(self, batch: int, methods: list[str] | None) -> None:
        self.batch, self.methods = batch, methods
        plan = {"fingerprint": self._fingerprint, "batch": batch, "methods": methods}
        with replacing(self._path) as fresh:
            fresh.write_text(json.dumps(plan))
