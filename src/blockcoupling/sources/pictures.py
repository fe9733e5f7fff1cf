"""Pictures with their classes, as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from blockcoupling.errors import UserError

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Images:
    """Pictures with their classes.

    Attributes:
        pictures: RGB, 0 … 255; not necessarily all of one size.
        labels: which of `classes` each is of.
        classes: their names.
        source: a line that says which images these are.
    """

    pictures: Sequence[Picture]
    labels: Int64[np.ndarray, " image"]
    classes: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.labels):
            raise UserError(
                f"{self.source}: {len(self.pictures)} images with {len(self.labels)} labels"
            )
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if len(wrong):
            raise UserError(
                f"{self.source}: image {wrong[0]} has the label {self.labels[wrong[0]]}, and there "
                f"are {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.pictures)


def stacked(images: Images) -> UInt8[np.ndarray, "image height width 3"]:
    """All pictures in one array.

    Raises:
        UserError: they are not all of one size.
    """
    sizes = {picture.shape[:2] for picture in images.pictures}
    if len(sizes) > 1:
        shown = ", ".join(f"{height} × {width}" for height, width in sorted(sizes)[:3])
        raise UserError(f"{images.source}: images of {len(sizes)} sizes ({shown}, …), not of one")
    return np.stack(list(images.pictures))


def content_digest(images: Images) -> str:
    """SHA-256 of pixels and labels, whatever files they were read from."""
    digest = hashlib.sha256(np.ascontiguousarray(images.labels, dtype=np.int64).tobytes())
    for picture in images.pictures:
        digest.update(repr(picture.shape).encode())
        digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.hexdigest()
