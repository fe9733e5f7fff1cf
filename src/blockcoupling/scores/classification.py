"""How well an image model tells classes apart: accuracy, loss, calibration, on images held out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import blockcoupling
from blockcoupling.config.images import ImagePrompts
from blockcoupling.config.section import parse
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.progress import Progress
from blockcoupling.sources.images import load_images
from blockcoupling.sources.pictures import Images
from blockcoupling.sources.preprocessing import prepared

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

BINS = 15
"""Of confidence, as Guo et al. have them."""
_AT_ONCE = 250


def image_scores(model: Any, processor: Any, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores of an image classifier on labelled images.

    Args:
        model: with a head for as many classes as the images have, in the same order.
        processor: its image processor.
        spec: the fields of `config.images.ImagePrompts`: which images.

    Returns:
        The rows of `classification_scores`, with score (`test`, or the split) and source.

    Raises:
        UserError: the images cannot be read, or have other classes than the model.
        MeasurementError: a loss is not finite.
    """
    section = parse(ImagePrompts, dict(spec), "the description of the images")
    images = load_images(section.images, section.split)
    head = getattr(model, "classifier", None)
    classes = getattr(head, "out_features", None)
    if classes != len(images.classes):
        told = "no classifier" if classes is None else f"a classifier of {classes} classes"
        raise UserError(f"{images.source} has {len(images.classes)} classes, and the model {told}")
    rows = classification_scores(logits_of(model, processor, images), images.labels)
    source = f"{images.source}; evaluated by blockcoupling {blockcoupling.__version__}"
    return [{"score": section.split, "source": source, **row} for row in rows]


def logits_of(model: Any, processor: Any, images: Images) -> Float64[np.ndarray, "image class"]:
    """What a classifier says of every image."""
    import torch

    found = []
    weights = next(model.parameters())
    with Progress(len(images), "scoring", "image") as progress, torch.inference_mode():
        for start in range(0, len(images), _AT_ONCE):
            some = images.pictures[start : start + _AT_ONCE]
            pixels = prepared(processor, some).to(weights.device, weights.dtype)
            found.append(model(pixel_values=pixels).logits.double().cpu().numpy())
            for _ in some:
                progress.advance()
    return np.concatenate(found)


def classification_scores(
    logits: Float64[np.ndarray, "image class"], labels: Int64[np.ndarray, " image"]
) -> list[dict[str, Any]]:
    """Accuracy, loss in nats and expected calibration error.

    Standard errors are those of a mean over images; the calibration error, which is none, has none.

    Args:
        logits: unnormalised logarithms of probabilities.
        labels: which class is right.

    Returns:
        A row a metric: metric, value, standard_error, n, higher_is_better.

    Raises:
        MeasurementError: a loss is not finite.
    """
    from scipy.special import log_softmax

    logs = log_softmax(logits, axis=1)
    losses = -logs[np.arange(len(labels)), labels]
    if not np.isfinite(losses).all():
        raise MeasurementError("the loss on the images held out is not finite")
    right = (logits.argmax(axis=1) == labels).astype(float)
    error = calibration_error(np.exp(logs), labels)
    measured = [
        ("accuracy", *_mean(right), True),
        ("loss", *_mean(losses), False),
        ("calibration_error", error, math.nan, False),
    ]
    names = ("metric", "value", "standard_error", "higher_is_better")
    return [{**dict(zip(names, each, strict=True)), "n": len(labels)} for each in measured]


def _mean(values: Float64[np.ndarray, " image"]) -> tuple[float, float]:
    if len(values) < 2:
        return float(values.mean()), math.nan
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def calibration_error(
    probabilities: Float64[np.ndarray, "image class"],
    labels: Int64[np.ndarray, " image"],
    bins: int = BINS,
) -> float:
    """Expected calibration error: Σ_b n_b/n |accuracy_b − mean confidence_b|.

    Guo et al., arXiv 1706.04599, eq. 3: confidence is the largest probability, bins (low, high]
    are of one width.

    Args:
        probabilities: of every class.
        labels: which is right.
        bins: how many.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    # (0, 1/n] is the first: a confidence on an edge belongs below it.
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
