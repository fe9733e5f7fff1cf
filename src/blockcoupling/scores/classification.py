"""How well an image model classifies held-out images: accuracy, loss, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

import blockcoupling
from blockcoupling.config.images import ImagePrompts
from blockcoupling.config.section import parse
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.progress import Progress
from blockcoupling.scores.table import Rows, metric_row
from blockcoupling.sources.images import load_images
from blockcoupling.sources.pictures import Images
from blockcoupling.sources.preprocessing import prepared

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from blockcoupling.scores.scores import Checkpoint

BINS = 15
"""Bins of confidence, as in Guo et al."""
_BATCH = 250


def image_scores(checkpoint: Checkpoint, asked: Mapping[str, Any], before: Rows) -> Rows:
    """Scores of an image classifier on labelled images; see `scores.table`.

    Args:
        checkpoint: Checkpoint of a model whose head has the classes of the images, in order.
        asked: The fields of `config.images.ImagePrompts`.
        before: Not used.

    Returns:
        The rows of `classification_scores`, with score (`test`, or the split) and source.

    Raises:
        UserError: The images cannot be read, or their classes are not those of the model.
        MeasurementError: A loss is not finite.
    """
    section = parse(ImagePrompts, dict(asked), "the description of the images")
    images = load_images(section.images, section.split)
    model, processor = checkpoint.loaded
    classes = getattr(getattr(model, "classifier", None), "out_features", None)
    if classes != len(images.classes):
        head = "no classifier" if classes is None else f"a classifier of {classes} classes"
        raise UserError(
            f"{images.source} has {len(images.classes)} classes, but the model has {head}"
        )
    rows = classification_scores(logits_of(model, processor, images), images.labels)
    source = f"{images.source}; evaluated by blockcoupling {blockcoupling.__version__}"
    return [{"score": section.split, "source": source, **row} for row in rows]


def logits_of(model: Any, processor: Any, images: Images) -> Float64[np.ndarray, "image class"]:
    """A classifier's logits for every image."""
    import torch

    from blockcoupling.transformer.images import channels_of

    found = []
    weights = next(model.parameters())
    with Progress(len(images), "scoring", "image") as progress, torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = images.pictures[start : start + _BATCH]
            values = prepared(processor, batch, channels_of(model))
            for _, of_one_size in groupby(values, key=lambda each: each.shape):
                pixels = torch.stack(list(of_one_size)).to(weights.device, weights.dtype)
                found.append(model(pixel_values=pixels).logits.double().cpu().numpy())
            for _ in batch:
                progress.advance()
    return np.concatenate(found)


def classification_scores(
    logits: Float64[np.ndarray, "image class"], labels: Int64[np.ndarray, " image"]
) -> Rows:
    """Accuracy, loss in nats and expected calibration error.

    Standard errors are those of a mean over images; the calibration error, which is not a mean,
    has none.

    Args:
        logits: Unnormalised log-probabilities.
        labels: The correct classes.

    Returns:
        One row per metric: metric, value, standard_error, n, higher_is_better.

    Raises:
        MeasurementError: A loss is not finite.
    """
    from scipy.special import log_softmax

    logs = log_softmax(logits, axis=1)
    losses = -logs[np.arange(len(labels)), labels]
    if not np.isfinite(losses).all():
        raise MeasurementError("the loss on the held-out images is not finite")
    correct = (logits.argmax(axis=1) == labels).astype(float)
    error = calibration_error(np.exp(logs), labels)
    n = len(labels)
    return [
        metric_row("accuracy", *_mean(correct), n),
        metric_row("loss", *_mean(losses), n, higher_is_better=False),
        metric_row("calibration_error", error, math.nan, n, higher_is_better=False),
    ]


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
    have equal widths.

    Args:
        probabilities: Probability of every class.
        labels: The correct classes.
        bins: Number of bins.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    # A confidence on an edge belongs to the bin below it.
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
