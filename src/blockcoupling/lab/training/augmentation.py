"""Random augmentation of training images: crop, flip, RandAugment, random erasing.

Every image is changed by itself. RandAugment: Cubuk et al., arXiv 1909.13719, with the operations
and ranges that DeiT's recipe has (`rand-m9-mstd0.5-inc1`); random erasing: Zhong et al., arXiv
1708.04896, with noise in the place of pixels. The operations on colours and places are kornia's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from kornia import enhance
from kornia.geometry.transform import warp_affine
from torch import Tensor

from blockcoupling.config.vision import Augmentation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    Batch = Float[Tensor, "image channel height width"]
    PerImage = Float[Tensor, " image"]

ERASED_AREA = (0.02, 1 / 3)
"""Smallest and largest share of an image that is erased."""
ERASED_ASPECT = 0.3
"""Smallest ratio of height to width of the erased part; the largest is its inverse."""


def _auto_contrast(x: Batch, _: PerImage) -> Batch:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-12), x)


def _solarize(x: Batch, by: PerImage) -> Batch:
    threshold = 1 - by.abs()[:, None, None, None]
    return torch.where(x < threshold, x, 1 - x)


def _solarize_add(x: Batch, by: PerImage) -> Batch:
    added = (by.abs() * 110 / 255)[:, None, None, None]
    return torch.where(x < 128 / 255, (x + added).clamp(0, 1), x)


def _colour(x: Batch, by: PerImage) -> Batch:
    # Kornia has saturation by hue, the recipe Pillow's: away from the image in grey (ITU-R 601).
    grey = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    return grey + (x - grey) * (1 + 0.9 * by)[:, None, None, None]


def _moved(
    x: Batch,
    turned: PerImage | float = 0.0,
    across: PerImage | float = 0.0,
    down: PerImage | float = 0.0,
    sheared_x: PerImage | float = 0.0,
    sheared_y: PerImage | float = 0.0,
) -> Batch:
    """Affine transformation of images about their centre, grey outside of them.

    By an angle in radians, shares of width and height, and shears.
    """
    count, channels, height, width = x.shape
    full = x.new_zeros(count)
    angle = full + turned
    matrix = torch.stack(
        [
            angle.cos() + full,
            angle.sin() + sheared_x,
            full + across * width,
            -angle.sin() + sheared_y,
            angle.cos() + full,
            full + down * height,
        ],
        dim=1,
    ).view(count, 2, 3)
    middle = x.new_tensor([(width - 1) / 2, (height - 1) / 2])
    matrix[:, :, 2] += middle - matrix[:, :, :2] @ middle
    grey = x.new_full((channels,), 0.5)
    return warp_affine(x, matrix, (height, width), padding_mode="fill", fill_value=grey)


OPERATIONS: Mapping[str, Callable[[Batch, PerImage], Batch]] = {
    "auto_contrast": _auto_contrast,
    "equalize": lambda x, _: enhance.equalize(x.clamp(0, 1)),
    "invert": lambda x, _: 1 - x,
    "rotate": lambda x, by: _moved(x, turned=by * math.radians(30)),
    "posterize": lambda x, by: enhance.posterize(x, 4 - (by.abs() * 4).int()),
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "colour": _colour,
    "contrast": lambda x, by: enhance.adjust_contrast_with_mean_subtraction(x, 1 + 0.9 * by),
    "brightness": lambda x, by: enhance.adjust_brightness_accumulative(x, 1 + 0.9 * by),
    "sharpness": lambda x, by: enhance.sharpness(x, 1 + 0.9 * by),
    "shear_x": lambda x, by: _moved(x, sheared_x=0.3 * by),
    "shear_y": lambda x, by: _moved(x, sheared_y=0.3 * by),
    "translate_x": lambda x, by: _moved(x, across=0.45 * by),
    "translate_y": lambda x, by: _moved(x, down=0.45 * by),
}
"""RandAugment's, each of images in 0 … 1 and of a strength of −1 … 1 an image; the sign matters
where there are two directions."""


def cropped(
    images: Batch, padding: int, draw: torch.Generator
) -> Float[Tensor, "image channel height width"]:
    """Random crops of the images' own size, out of the images padded with black."""
    height, width = images.shape[-2:]
    padded = torch.nn.functional.pad(images, [padding] * 4)
    start = torch.randint(2 * padding + 1, (2, len(images)), generator=draw).to(images.device)
    rows = start[0, :, None] + torch.arange(height, device=images.device)
    columns = start[1, :, None] + torch.arange(width, device=images.device)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def flipped(images: Batch, draw: torch.Generator) -> Float[Tensor, "image channel height width"]:
    """Random horizontal flip with probability 0.5."""
    turn = (torch.rand(len(images), generator=draw) < 0.5).to(images.device)
    return torch.where(turn[:, None, None, None], images.flip(3), images)


def rand_augmented(
    images: Batch, count: int, magnitude: float, spread: float, draw: torch.Generator
) -> Float[Tensor, "image channel height width"]:
    """RandAugment: operations drawn for each image separately, with replacement.

    Args:
        images: in 0 … 1.
        count: operations an image.
        magnitude: 0 … 10.
        spread: its standard deviation.
        draw: says which operations, how strong, and in which direction.
    """
    operations = list(OPERATIONS.values())
    for _ in range(count):
        which = torch.randint(len(operations), (len(images),), generator=draw)
        normal = torch.randn(len(images), generator=draw)
        strength = ((magnitude + spread * normal) / 10).clamp(0, 1)
        sign = torch.randint(2, (len(images),), generator=draw) * 2 - 1
        by = (strength * sign).to(images)
        changed = torch.empty_like(images)
        for number, operation in enumerate(operations):
            own = torch.nonzero(which == number)[:, 0].to(images.device)
            if len(own):
                changed[own] = operation(images[own], by[own]).clamp(0, 1)
        images = changed
    return images


def rectangles(
    count: int, height: int, width: int, often: float, draw: torch.Generator
) -> Bool[Tensor, "image height width"]:
    """The pixels that random erasing removes from each image, possibly none."""
    taken = torch.zeros(count, height, width, dtype=torch.bool)
    for number in torch.nonzero(torch.rand(count, generator=draw) < often)[:, 0].tolist():
        for _ in range(10):
            u = torch.rand(4, generator=draw, dtype=torch.float64).tolist()
            area = height * width * (ERASED_AREA[0] + u[0] * (ERASED_AREA[1] - ERASED_AREA[0]))
            aspect = math.exp(math.log(ERASED_ASPECT) * (1 - 2 * u[1]))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < rows < height and 0 < columns < width:
                top, left = int(u[2] * (height - rows + 1)), int(u[3] * (width - columns + 1))
                taken[number, top : top + rows, left : left + columns] = True
                break
    return taken


class Augmenting:
    """Augments batches as configured.

    Args:
        section: what is done.
        mean: of each channel, 0 … 1.
        std: its standard deviation.
        draw: says what happens to each image; part of the training's state.
    """

    def __init__(
        self,
        section: Augmentation,
        mean: Float[Tensor, " channel"],
        std: Float[Tensor, " channel"],
        draw: torch.Generator,
    ) -> None:
        self._section, self._draw = section, draw
        self._mean, self._std = mean[:, None, None], std[:, None, None]

    def __call__(self, images: Batch) -> Float[Tensor, "image channel height width"]:
        """Augmented and normalised pixel values of images in 0 … 1."""
        section, draw = self._section, self._draw
        if section.crop:
            images = cropped(images, section.crop, draw)
        if section.flip:
            images = flipped(images, draw)
        if section.randaugment:
            spread = section.magnitude_spread
            images = rand_augmented(images, section.randaugment, section.magnitude, spread, draw)
        images = (images - self._mean.to(images)) / self._std.to(images)
        if section.erasing:
            count, _, height, width = images.shape
            taken = rectangles(count, height, width, section.erasing, draw).to(images.device)
            noise = torch.randn(images.shape, generator=draw).to(images)
            images = torch.where(taken[:, None], noise, images)
        return images
