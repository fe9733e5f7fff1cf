"""One job: a model at a checkpoint and a dataset of prompts → the SVD store, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from torch import nn

from blockcoupling.config.measurement import Settings
from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.errors import UserError
from blockcoupling.jacobian.dense_svd import takes_full_svd
from blockcoupling.jacobian.method import SMALL_DIMENSION
from blockcoupling.measurement.checking import refuse_texts
from blockcoupling.measurement.instrument import Instrument
from blockcoupling.measurement.job import Advance, Job, Plan, fingerprints
from blockcoupling.measurement.pictures import as_seen
from blockcoupling.measurement.points import Prompt
from blockcoupling.sources.identity import origin
from blockcoupling.sources.image_prompts import read_image_prompts
from blockcoupling.sources.models import load_model, load_streamed, takes_images, with_identity
from blockcoupling.sources.preprocessing import prepared
from blockcoupling.sources.prompts import read_prompts
from blockcoupling.sources.records import read_record
from blockcoupling.store.parts import fingerprint
from blockcoupling.store.schema import OF_PROMPTS
from blockcoupling.store.stores import merge, write_prompt
from blockcoupling.transformer.images import Picture
from blockcoupling.transformer.streaming import StreamedModel
from blockcoupling.transformer.tokens import tokenize_prompts

# What a setting adds to a prompt's store, and leaves the other numbers as they are: a store that
# holds more than is asked for need not be measured again.
ADDED = {
    "vectors": ("U", "V"),
    "swapped": ("A_swapped",),
    "overlaps": tuple(OVERLAPS),
    "full": ("S_full",),
}


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
    ends with the same numbers. With other prompts, only batches that stay as they were are kept:
    the store is that of a job that had these prompts from the start.

    Args:
        model: a model record, or the JSON file that holds it.
        prompts: JSON lines with `id` and `text`, or, for an image model, `id` and `image`.
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
    record = with_identity(read_record(model) if isinstance(model, Path) else model)
    loaded: StreamedModel | nn.Module
    if stream:
        loaded, beside = load_streamed(record, device, dtype)
    else:
        loaded, beside = load_model(record, device, dtype)
    instrument = Instrument.of(loaded, settings, {})
    read = _images if takes_images(record) else _texts
    wanted = read(instrument, beside, prompts)
    dimension = instrument.blocks(wanted[0]).dimension
    if settings.k is not None and settings.k > dimension and k_when_smaller == "d":
        instrument.settings = settings.model_copy(update={"k": dimension})
    k = instrument.check(wanted)

    decisive, added = _decisive(instrument.settings, k, dimension)
    made_from = {"settings": decisive, "model": record["identity"], "dtype": dtype}
    longest = max(p.length for p in wanted)
    plan = Plan(parts / "plan.json", fingerprint(**made_from, batch=batch, longest=longest))
    if plan.get("batch") is None:
        plan.decide(batch=batch or instrument.prompts_at_once(wanted, k), methods=None)
    tokens = {p.id: _made_of(p) for p in wanted}
    expected = fingerprints(tokens, plan.get("batch"), made_from)
    by_id = {p.id: p for p in wanted}
    instrument.methods = plan.get("methods")

    def measure(names: Sequence[str], _: Advance) -> list[xr.Dataset]:
        measured = instrument.measure([by_id[name] for name in names])
        if stream:
            with_identity(record)  # its files were read on the way: refuse what was written to
        if plan.get("methods") is None:
            plan.decide(methods=instrument.methods)
        return measured

    Job(
        model=f"{record.get('name')} at {record.get('checkpoint')}",
        parts=parts,
        expected=expected,
        needed=[*added, *OF_PROMPTS],
        measure=measure,
        write=lambda parts, _, ds, mark: write_prompt(parts, ds, mark),
        join=lambda parts, out, expected: merge(
            parts, out, expected, attributes=origin(record, dtype), optional=added
        ),
        what="measuring",
        together=plan.get("batch"),
    ).run(out)


def _texts(instrument: Instrument, tokenizer: Any, prompts: Path) -> Sequence[Prompt]:
    """The prompts of a file of texts."""
    texts = [(p.id, p.text) for p in read_prompts(prompts)]
    if not texts:
        raise UserError(f"{prompts} holds no prompt")
    refuse_texts(instrument.model)
    return tokenize_prompts(tokenizer, texts, instrument.model, instrument.keeps_marks)


def _images(instrument: Instrument, processor: Any, prompts: Path) -> Sequence[Prompt]:
    """The prompts of a file of images, prepared as the model's own processor does it."""
    images = read_image_prompts(prompts)
    values = prepared(processor, [image.picture for image in images])
    return as_seen(instrument, [image.id for image in images], values)


def _made_of(prompt: Prompt) -> list[Any]:
    """What a prompt is to the model, for its fingerprint: token ids, or a digest of its pixels."""
    if isinstance(prompt, Picture):
        pixels = prompt.given.float().cpu().numpy()
        return [list(pixels.shape), hashlib.sha256(pixels.tobytes()).hexdigest()]
    return prompt.input_ids[0].tolist()


def _decisive(settings: Settings, k: int, dimension: int) -> tuple[dict[str, Any], list[str]]:
    """The settings that decide numbers, and the variables that the others ask for."""
    asked = settings.model_dump()
    added = [name for key in ADDED if asked.pop(key) for name in ADDED[key]]
    dense = settings.method == "dense" or (
        settings.method == "auto" and dimension <= SMALL_DIMENSION
    )
    if asked["stage"] is None:
        del asked["stage"]
    # All singular values take a full SVD, which is what small Jacobians get anyway.
    if settings.full and not (dense and takes_full_svd(dimension, k)):
        asked["full"] = True
    return asked, added
