"""Images for training: all of one size, in one array, sampled by seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blockcoupling.config.vision import VisionTraining
from blockcoupling.errors import UserError
from blockcoupling.sources.images import load_images
from blockcoupling.sources.pictures import Images, Picture, content_digest, stacked

if TYPE_CHECKING:
    from jaxtyping import Float, Int64, UInt8


class ImageData(NamedTuple):
    """Images to train on, and held-out ones to watch.

    Attributes:
        images: 0 … 255.
        labels: class of each image.
        watched: held-out images.
        watched_labels: class of each of those.
        classes: their names.
        source: a line that says which images these are.
        digest: SHA-256 of all pixels and labels, training and held out, as they came.
    """

    images: UInt8[Tensor, "image 3 height width"]
    labels: Int64[Tensor, " image"]
    watched: UInt8[Tensor, "watched 3 height width"]
    watched_labels: Int64[Tensor, " watched"]
    classes: tuple[str, ...]
    source: str
    digest: str


def image_data(shape: VisionTraining) -> ImageData:
    """Read and check the images of a training.

    Raises:
        UserError: they cannot be read, are not all square and of one size though none is asked for,
            do not divide into patches, are too few, or have other classes held out.
    """
    train, test = (load_images(shape.images, split) for split in ("train", "test"))
    if train.classes != test.classes:
        raise UserError(f"{train.source} has other classes than {test.source}")
    count = shape.image_count or len(train)
    if count > len(train):
        raise UserError(
            f"{train.source} has {len(train)} images, {count} are asked for; lower `image_count`"
        )
    if shape.batch > count:
        raise UserError(f"batch = {shape.batch} is more than the {count} images there are")
    images, labels = _part(train, count, shape)
    labels = with_random_labels(labels, shape.random_labels, len(train.classes))
    watched, watched_labels = _part(test, min(shape.watched, len(test)), shape)
    digest = f"{content_digest(train)} {content_digest(test)}"
    return ImageData(images, labels, watched, watched_labels, train.classes, train.source, digest)


def _part(
    images: Images, count: int, shape: VisionTraining
) -> tuple[UInt8[Tensor, "image 3 height width"], Int64[Tensor, " image"]]:
    """A given number of images of the training's size, drawn with a separate seed."""
    chosen = np.arange(len(images))
    if count < len(images):
        chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:count])
    some = Images(
        [scaled(images.pictures[n], shape.image_size) for n in chosen.tolist()],
        images.labels[chosen],
        images.classes,
        images.source,
    )
    if not count:
        size = shape.image_size or 1
        return torch.zeros(0, 3, size, size, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    pixels = torch.from_numpy(stacked(some)).permute(0, 3, 1, 2).contiguous()
    height, width = pixels.shape[-2:]
    if height != width:
        raise UserError(f"{images.source}: images of {height} × {width}; set image_size")
    if height % shape.patch:
        raise UserError(
            f"{images.source}: images of {height} pixels do not divide into patches of "
            f"{shape.patch}; choose another patch or image_size"
        )
    return pixels, torch.from_numpy(some.labels)


def with_random_labels(
    labels: Int64[Tensor, " image"], share: float, classes: int
) -> Int64[Tensor, " image"]:
    """Labels with a share of them drawn at random (Zhang et al., arXiv 1611.03530).

    The same for every training; a smaller share is within a larger one. By chance a drawn label is
    the true one for one image in as many as there are classes.

    Args:
        labels: class of each image.
        share: of the labels that are drawn, in [0, 1].
        classes: their number.
    """
    random = np.random.default_rng(0)
    chosen = torch.from_numpy(random.random(len(labels)) < share)
    drawn = torch.from_numpy(random.integers(classes, size=len(labels)))
    return torch.where(chosen, drawn, labels)


def scaled(picture: Picture, size: int | None) -> Picture:
    """Resize an image to this height and width, as transformers' image processor does."""
    if size is None or picture.shape[:2] == (size, size):
        return picture
    made = Image.fromarray(np.asarray(picture)).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(made)


def channel_statistics(
    images: UInt8[Tensor, "image 3 height width"],
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, 0 … 1, to four places."""
    values = images.double() / 255
    mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3)).clamp_min(1e-4)
    return [round(float(v), 4) for v in mean], [round(float(v), 4) for v in std]


def normalised(
    images: UInt8[Tensor, "image 3 height width"], mean: list[float], std: list[float]
) -> Float[Tensor, "image 3 height width"]:
    """Pixel values that the model's image processor computes from images of its size."""
    centre, spread = (images.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, std))
    return (images / 255 - centre) / spread
