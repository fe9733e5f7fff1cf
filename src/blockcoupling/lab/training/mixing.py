"""Training targets that are distributions over classes: label smoothing, mixup and cutmix.

Mixup: Zhang et al., arXiv 1710.09412; cutmix: Yun et al., arXiv 1905.04899. As in DeiT one share is
drawn for a batch, and each image's partner is the one in its place when the batch is turned round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from blockcoupling.config.vision import Augmentation

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def soft_targets(
    labels: Int[Tensor, " image"], classes: int, smoothing: float = 0.0
) -> Float[Tensor, "image class"]:
    """Probabilities: 1 − smoothing for the label, and smoothing shared out among all classes."""
    targets = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    targets[torch.arange(len(labels)), labels] += 1 - smoothing
    return targets


def mixed_up(batch: Float[Tensor, "image ..."], share: float) -> Float[Tensor, "image ..."]:
    """Mixup: `share` of each image and target, and the rest of its partner's."""
    return batch * share + batch.flip(0) * (1 - share)


def box(
    height: int, width: int, share: float, centre: tuple[float, float]
) -> tuple[slice, slice, float]:
    """Rows and columns that cutmix replaces, and the share of the image that remains.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        share: what is to stay, before the box is cut at the edges.
        centre: of the box, 0 … 1 of height and width.
    """
    edges = []
    for size, at in ((height, centre[0]), (width, centre[1])):
        half = int(size * (1 - share) ** 0.5) // 2
        middle = int(at * size)
        edges.append(slice(max(0, middle - half), min(size, middle + half)))
    rows, columns = edges
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return rows, columns, 1 - area / (height * width)


class Mixing:
    """Mixup, cutmix and label smoothing of batches.

    Args:
        section: how, and how often.
        classes: how many there are.
        draw: says what is mixed with what; part of the training's state.
    """

    def __init__(self, section: Augmentation, classes: int, draw: torch.Generator) -> None:
        self._section, self._classes, self._draw = section, classes, draw

    def __call__(
        self, images: Float[Tensor, "image channel height width"], labels: Int[Tensor, " image"]
    ) -> tuple[Float[Tensor, "image channel height width"], Float[Tensor, "image class"]]:
        """The mixed images of a batch, and the probabilities of their classes."""
        section = self._section
        targets = soft_targets(labels, self._classes, section.label_smoothing)
        ways = [way for way in ("mixup", "cutmix") if getattr(section, way) > 0]
        if not ways:
            return images, targets
        # Torch's generators have no Beta distribution.
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=self._draw)))
        way = ways[random.integers(len(ways))]
        alpha = getattr(section, way)
        share = float(random.beta(alpha, alpha))
        if way == "mixup":
            return mixed_up(images, share), mixed_up(targets, share)
        height, width = images.shape[-2:]
        rows, columns, share = box(height, width, share, tuple(random.random(2)))
        images = images.clone()
        images[..., rows, columns] = images.flip(0)[..., rows, columns]
        return images, mixed_up(targets, share)
