"""One model and a few prompts, without the workflow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
import xarray as xr
from torch import nn

from blockcoupling.config.measurement import Asked
from blockcoupling.errors import UserError
from blockcoupling.measurement.measure_batch import default_batch, measure_batch
from blockcoupling.measurement.prepare import Prepared, prepare_images, prepare_texts
from blockcoupling.measurement.prompts import Prompt
from blockcoupling.store.svd import SVD
from blockcoupling.transformer.images import pixel_values_of
from blockcoupling.transformer.running import refuse_absent_weights
from blockcoupling.transformer.streaming import StreamedModel
from blockcoupling.transformer.tokens import texts_of


def measure(
    model: nn.Module | StreamedModel,
    tokenizer: Callable[[str], Any] | None = None,
    prompts: str | Iterable[str] | None = None,
    k: int | None = None,
    *,
    images: Any = None,
    dtype: torch.dtype | None = None,
    batch: int | None = None,
    preset: str | None = None,
    progress: Callable[[], object] = lambda: None,
    **settings: Any,
) -> xr.Dataset:
    """Measure prompts or images: singular triples of every block's Jacobian, A_ij, trajectories.

    Args:
        model: a transformer (of Hugging Face or similar) with weights in float32 or float64; others
            are measured on a float32 copy. Or a streamed model (`streaming.stream_model`).
        tokenizer: any callable text → input_ids, or → a mapping that holds them.
        prompts: the texts; a single string is one prompt.
        k: K_max; by default 50, or d where d < 50.
        images: for an image model, instead of tokenizer and prompts: pixel values (image, channel,
            height, width) in the model's own preprocessing. The last patch is measured unless
            `tokens` says otherwise.
        dtype: measure on a copy of the model with weights of this type.
        batch: prompts that go through a block together; None: 16, or as many as take 8 GiB
            (`measure_batch.default_batch`).
        preset: settings that belong together, by name: "released" is what the authors' code does
            (docs/definitions.md).
        progress: called after every prompt.
        settings: the other fields of `config.measurement.Settings`: tokens, method, tolerance, …

    Returns:
        The dataset of docs/schema.md, prompts named p0, p1, …, images i0, i1, …

    Raises:
        UserError: prompts, images or settings that cannot be measured on this model.
        MeasurementError: a number cannot be trusted; names block and prompt.

    Example:
        >>> ds = bc.measure(model, tokenizer, ["The capital of France is", "Two roads"], k=5)
        >>> ds["A"].dims
        ('prompt', 'pair', 'block', 'block_other', 'k', 'k_other')
    """
    prepared, read = ready(
        model, tokenizer, prompts, images, {"k": k, "preset": preset, **settings}, dtype=dtype
    )
    ds = SVD.combine(measured(prepared, read, batch, progress))
    SVD.validate(ds)
    return ds


def ready(
    model: nn.Module | StreamedModel,
    tokenizer: Callable[[str], Any] | None,
    prompts: str | Iterable[str] | None,
    images: Any,
    given: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    k_when_smaller: str = "error",
) -> tuple[Prepared, list[Prompt]]:
    """Check and prepare what `measure` was called with.

    Args:
        model: as in `measure`, like tokenizer, prompts, images and dtype.
        tokenizer: text → input_ids.
        prompts: the texts.
        images: pixel values.
        given: settings by name.
        dtype: of the weights.
        k_when_smaller: see `prepare.prepare`.

    Returns:
        The model, and the prompts named p0, p1, … or the images i0, i1, …

    Raises:
        UserError: listing all that is wrong.
    """
    asked, wrong = Asked.read(given, also_known=signature(measure).parameters)
    if (images is None) == (prompts is None) or (prompts is not None and tokenizer is None):
        raise UserError(
            "give either a tokenizer and prompts, or images: measure(model, tokenizer, prompts) or "
            "measure(model, images=pixel_values)"
        )
    original = None
    if not isinstance(model, StreamedModel):
        exact = in_precision(model, dtype)
        original, model = None if exact is model else model, exact
    how: dict[str, Any] = {"k_when_smaller": k_when_smaller, "known": wrong, "original": original}
    if images is not None:
        values = pixel_values_of(images)
        names = [f"i{i}" for i in range(len(values))]
        return prepare_images(model, names, values, asked.settings, **how)
    assert tokenizer is not None
    texts = [(f"p{i}", text) for i, text in enumerate(texts_of(prompts))]
    return prepare_texts(model, tokenizer, texts, asked.settings, **how)


def measured(
    prepared: Prepared,
    prompts: Sequence[Prompt],
    batch: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> list[xr.Dataset]:
    """The dataset of each prompt, measured in batches; see `measure`."""
    batch = batch or default_batch(prepared, prompts)
    parts: list[xr.Dataset] = []
    for start in range(0, len(prompts), batch):
        for part in measure_batch(prepared, prompts[start : start + batch]):
            parts.append(part)
            progress()
    return parts


def in_precision(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """The model itself where all its weights are float32, or float64 (or `dtype`), else a copy."""
    if not isinstance(model, nn.Module):
        raise UserError(
            f"the model is a {type(model).__name__}, not a model object: load it, such as with "
            "AutoModelForCausalLM.from_pretrained(NAME) of transformers"
        )
    refuse_absent_weights(model)
    own = {p.dtype for p in model.parameters() if p.is_floating_point()}
    exact = len(own) == 1 and own <= {torch.float32, torch.float64}
    wanted = dtype or (next(iter(own)) if exact else torch.float32)
    if own == {wanted}:
        return model
    with torch.inference_mode(False):
        return copy.deepcopy(model).to(wanted)
