"""One job: a model at a checkpoint and a dataset of prompts → the SVD store, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from torch import nn

from blockcoupling.config.measurement import Settings
from blockcoupling.errors import UserError
from blockcoupling.measurement.instrument import Instrument
from blockcoupling.measurement.job import Advance, Job, Plan
from blockcoupling.sources.models import load_model, load_streamed, read_record
from blockcoupling.sources.prompts import read_prompts
from blockcoupling.store.parts import fingerprint
from blockcoupling.store.stores import merge, write_prompt
from blockcoupling.transformer.streaming import StreamedModel
from blockcoupling.transformer.tokens import tokenize_prompts

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
        instrument.settings = settings.model_copy(update={"k": dimension})
    k = instrument.check(wanted)

    expected = {
        p.id: fingerprint(
            settings=instrument.settings.model_dump(),
            identity=identity,
            weights={key: record.get(key) for key in _WEIGHTS},
            input_ids=p.input_ids[0].tolist(),
        )
        for p in wanted
    }
    plan = Plan(parts / "plan.json", fingerprint(all=expected, batch=batch))
    if plan.get("batch") is None:
        plan.decide(batch=batch or instrument.prompts_at_once(wanted, k), methods=None)
    by_id = {p.id: p for p in wanted}
    instrument.methods = plan.get("methods")

    def measure(names: Sequence[str], _: Advance) -> list[xr.Dataset]:
        measured = instrument.measure([by_id[name] for name in names])
        if plan.get("methods") is None:
            plan.decide(methods=instrument.methods)
        return measured

    Job(
        model=f"{identity['model']} at {identity['checkpoint']}",
        parts=parts,
        expected=expected,
        measure=measure,
        write=lambda parts, _, ds, mark: write_prompt(parts, ds, mark),
        join=merge,
        what="measuring",
        together=plan.get("batch"),
    ).run(out)
