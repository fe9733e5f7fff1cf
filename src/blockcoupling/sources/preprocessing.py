"""Pictures as a model wants them: its own image processor's pixel values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockcoupling.errors import UserError
from blockcoupling.sources.float_images import FloatImages
from blockcoupling.sources.local import PROCESSORS
from blockcoupling.sources.pictures import Picture

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def image_processor(directory: Path, trust: bool) -> Callable[..., Any]:
    """The image processor in a model's directory, in Pillow, NumPy and torch alone.

    Args:
        directory: where it was saved.
        trust: whether the directory's own code may be run.

    Raises:
        UserError: it needs torchvision, which is not installed.
    """
    from transformers import AutoImageProcessor

    saved = _settings(directory)
    name = str(saved.get("image_processor_type")).removesuffix("Fast")
    if name in FloatImages.STANDS_FOR and FloatImages.has(saved):
        return FloatImages(saved)
    try:
        return AutoImageProcessor.from_pretrained(directory, trust_remote_code=trust, backend="pil")
    except ImportError as error:
        if "torchvision" not in str(error).lower():
            raise
        raise UserError(
            f"its image processor, {name}, needs torchvision: install the version that fits your "
            "torch (pytorch.org says which), or pass pixel values to bc.measure(model, images=…)"
        ) from error


def _settings(directory: Path) -> Mapping[str, Any]:
    """The settings of an image processor, from the file that transformers prefers."""
    for name in PROCESSORS:
        try:
            found = json.loads((directory / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        found = found.get("image_processor", found if name == PROCESSORS[-1] else None)
        if isinstance(found, dict):
            return found
    return {}


def prepared(
    processor: Callable[..., Any], pictures: Sequence[Picture], channels: int = 3
) -> list[Float[Tensor, "channel height width"]]:
    """The pixel values of images, resized and scaled by a model's image processor.

    Args:
        processor: the model's.
        pictures: the images; the processor may leave them at different sizes.
        channels: that the model takes; with one, images must be grey.

    Raises:
        UserError: the processor makes no such arrays of them, or one is not grey.
    """
    import torch
    from PIL import Image

    found = []
    for number, picture in enumerate(pictures):
        pixels = _with_channels(picture, channels, number)
        try:
            # As Pillow's images: of an array that is three pixels high, a processor takes the rows
            # for the colours.
            image = Image.fromarray(pixels)
            values = processor(images=image, return_tensors="pt")["pixel_values"]
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            why = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise UserError(
                f"the model's image processor cannot prepare the images: {why}"
            ) from error
        shape = tuple(getattr(values, "shape", ()))
        if len(shape) != 4 or shape[0] != 1:
            raise UserError(
                f"the model's image processor makes values of shape {shape} of an image, not one "
                "array (channel, height, width): models that take several parts of an image, or "
                "patches that were cut out before, cannot be measured"
            )
        found.append(torch.as_tensor(values[0]))
    return found


def _with_channels(picture: Picture, channels: int, number: int) -> Any:
    import numpy as np

    pixels = np.asarray(picture)
    if channels != 1 or pixels.ndim != 3:
        return pixels
    if (pixels != pixels[..., :1]).any():
        raise UserError(
            f"image {number} is in colour, and the model takes one channel: convert it to grey"
        )
    return pixels[..., 0]
