"""Labelled images: scans that scikit-learn carries, CIFAR-10, a folder, a dataset of the hub."""

from __future__ import annotations

import numpy as np

from blockcoupling.config.images import (
    Cifar10Images,
    DigitsImages,
    FolderImages,
    HubImages,
    ImageSource,
    Split,
)
from blockcoupling.digests import remembered_digest, remembered_tree_digest
from blockcoupling.sources.pictures import Images

HELD_OUT = 1 / 5
"""Share of the digits that is held out: the last ones, mostly by other writers than the first."""


def load_images(section: ImageSource, split: Split) -> Images:
    """The images that a section of the configuration describes.

    Args:
        section: where they come from.
        split: those to train on, or those held out.

    Raises:
        UserError: files that are missing or broken, or hold something else than they should.
    """
    match section:
        case DigitsImages():
            return _digits(split)
        case Cifar10Images():
            from blockcoupling.sources.cifar10 import read_cifar10

            return read_cifar10(section.path, split)
        case FolderImages():
            from blockcoupling.sources.image_folder import read_folder

            return read_folder(section.path / split)
        case HubImages():
            from blockcoupling.sources.hub_images import read_hub_images

            return read_hub_images(section, split)
    raise AssertionError(section)


def images_digest(section: ImageSource | None) -> str | None:
    """Digest of the images on this machine that a section names; None if they are elsewhere."""
    if not isinstance(section, Cifar10Images | FolderImages):
        return None
    place = section.path.resolve()
    return remembered_tree_digest(place) if place.is_dir() else remembered_digest(place)


def _digits(split: Split) -> Images:
    from sklearn.datasets import load_digits

    found = load_digits()
    # 0 … 16 in the scans; 0 … 255 in a picture.
    grey = np.rint(found.images * (255 / 16)).astype(np.uint8)
    held_out = np.arange(len(grey)) >= (1 - HELD_OUT) * len(grey)
    chosen = held_out if split == "test" else ~held_out
    return Images(
        list(np.repeat(grey[chosen, :, :, None], 3, axis=3)),
        found.target[chosen].astype(np.int64),
        tuple(map(str, found.target_names)),
        f"scikit-learn's digits, {split}",
    )
