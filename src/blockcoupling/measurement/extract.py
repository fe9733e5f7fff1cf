"""One job: a model at a checkpoint and a dataset of prompts → the SVD store, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blockcoupling.config.measurement import Settings
from blockcoupling.config.overlaps import CUMULATIVE, OVERLAPS
from blockcoupling.errors import UserError
from blockcoupling.jacobian.dense_svd import takes_full_svd
from blockcoupling.jacobian.work import SMALL_DIMENSION
from blockcoupling.measurement.job import Job, fingerprints, read_plan, write_plan
from blockcoupling.measurement.measure_batch import default_batch, measure_batch
from blockcoupling.measurement.prepare import Prepared, prepare_images, prepare_texts
from blockcoupling.measurement.prompts import Prompt
from blockcoupling.sources.identity import origin
from blockcoupling.sources.image_prompts import read_image_prompts
from blockcoupling.sources.models import load_model, load_streamed, takes_images, with_identity
from blockcoupling.sources.preprocessing import prepared as preprocessed
from blockcoupling.sources.prompts import read_prompts
from blockcoupling.sources.records import read_record
from blockcoupling.store.parts import fingerprint
from blockcoupling.store.svd import CKA, OF_PART, OF_PROMPTS, READOUT, SVD
from blockcoupling.transformer.images import Picture, channels_of

# What a setting adds to a prompt's store without changing the other numbers: a store that holds
# more than is asked for need not be measured again.
ADDED = {
    "vectors": ("U", "V"),
    "swapped": ("A_swapped",),
    "overlaps": tuple(OVERLAPS),
    "full": ("S_full",),
    "eigenvalues": ("eigenvalues",),
    "cumulative": ("S_cumulative", *CUMULATIVE),
    "detached": OF_PART["detached"],
    "readout": READOUT,
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

    Prompts are measured in batches of fixed composition. A prompt's store appears under its name
    only when it is whole, and a batch size that memory decided is written down next to it. So a job
    that is killed at any instant and run again ends with the same numbers. With other prompts, only
    batches that stay the same are kept: the store is that of a job that had these prompts from the
    start.

    Args:
        model: a model record, or the JSON file that holds it.
        prompts: JSON lines with `id` and `text`, or, for an image model, `id` and `image`.
        parts: directory for the parts, one a prompt, until they are joined.
        out: the store to write.
        settings: what to measure.
        k_when_smaller: what to do where k > d: "error", or "d" to take k = d.
        dtype: of the weights and products, "float32" or "float64".
        device: "auto", "cpu", "cuda", …
        batch: prompts measured together; None: `measure_batch.default_batch`.
        stream: have one block's weights in memory at a time.

    Raises:
        UserError: for prompts or settings that do not fit the model; nothing has been measured.
        MeasurementError: naming model, block and prompt.
    """
    record = with_identity(read_record(model) if isinstance(model, Path) else model)
    load: Any = load_streamed if stream else load_model
    loaded, processor = load(record, device, dtype)
    prepared, wanted = _prepare(record, loaded, processor, prompts, settings, k_when_smaller)

    decisive, added = _decisive(prepared.settings, prepared.k, prepared.blocks.dimension)
    provenance = {"settings": decisive, "model": record["identity"], "dtype": dtype, **CKA}
    if batch is None:
        batch = _lasting_batch(parts / "plan.json", provenance, prepared, wanted)
    expected = fingerprints({p.id: _content(p) for p in wanted}, batch, provenance)
    by_id = {prompt.id: prompt for prompt in wanted}
    name = f"{record.get('name')} at {record.get('checkpoint')}"
    job = Job(name, parts, expected, batch, [*added, *OF_PROMPTS, "uv_cosine"])
    with job.progress("measuring") as progress:
        for names in job.batches():
            measured = measure_batch(prepared, [by_id[name] for name in names])
            if stream:
                with_identity(record)  # refuse weights that were written to while they were read
            for prompt, ds, mark in job.new(names, measured):
                SVD.write(parts, prompt, ds, mark)
                progress.advance()
    SVD.join(parts, out, expected, attributes=origin(record, dtype), optional=added)


def _prepare(
    record: Mapping[str, Any],
    loaded: Any,
    processor: Any,
    prompts: Path,
    settings: Settings,
    k_when_smaller: str,
) -> tuple[Prepared, list[Prompt]]:
    """The model, and the prompts of a file of texts or images as it sees them."""
    if takes_images(record):
        images = read_image_prompts(prompts)
        pictures = [image.picture for image in images]
        values = preprocessed(processor, pictures, channels_of(loaded))
        names = [image.id for image in images]
        return prepare_images(loaded, names, values, settings, k_when_smaller=k_when_smaller)
    texts = [(prompt.id, prompt.text) for prompt in read_prompts(prompts)]
    if not texts:
        raise UserError(f"{prompts} holds no prompt")
    return prepare_texts(loaded, processor, texts, settings, k_when_smaller=k_when_smaller)


def _lasting_batch(
    plan: Path, provenance: Mapping[str, Any], prepared: Prepared, prompts: Sequence[Prompt]
) -> int:
    """The default batch, which a job that is resumed with more or less memory keeps."""
    longest = max(prompt.length for prompt in prompts)
    job = fingerprint(**provenance, batch=None, longest=longest)
    batch = read_plan(plan, job).get("batch")
    if batch is None:
        batch = default_batch(prepared, prompts)
        write_plan(plan, job, batch=batch)
    return batch


def _content(prompt: Prompt) -> list[Any]:
    """What a prompt is to the model, for its fingerprint: token ids, or a digest of its pixels."""
    if isinstance(prompt, Picture):
        pixels = prompt.given.float().cpu().numpy()
        return [list(pixels.shape), hashlib.sha256(pixels.tobytes()).hexdigest()]
    return prompt.input_ids[0].tolist()


def _decisive(settings: Settings, k: int, dimension: int) -> tuple[dict[str, Any], list[str]]:
    """The settings that decide numbers, and the variables that the others ask for."""
    asked = settings.model_dump()
    added = [name for key in ADDED if asked.pop(key) for name in ADDED[key]]
    added += [name for part in asked.pop("parts") if part != "block" for name in OF_PART[part]]
    dense = settings.method == "dense" or (
        settings.method == "auto" and dimension <= SMALL_DIMENSION
    )
    if asked["stage"] is None:
        del asked["stage"]
    # All singular values take a full SVD, which is what small Jacobians get anyway.
    if settings.full and not (dense and takes_full_svd(dimension, k)):
        asked["full"] = True
    elif settings.whole_jacobians and not dense:
        asked["whole"] = True
    return asked, added
