"""Labelled images of a dataset of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

import numpy as np

from blockcoupling.config.images import HubImages, Split
from blockcoupling.errors import UserError
from blockcoupling.sources.pictures import Images, Picture


def read_hub_images(section: HubImages, split: Split) -> Images:
    """Download one split of a dataset, and take its columns of images and classes.

    Raises:
        UserError: the dataset, split, revision or network is not there, or the columns are not
            what the section says.
    """
    from blockcoupling.sources.hub import dataset_table

    table, commit = dataset_table(section.id, section.config, split, section.revision)
    for column in (section.image, section.label):
        if column not in table.column_names:
            raise UserError(
                f"{section.id} has no column {column!r}; it has {', '.join(table.column_names)} "
                "(keys `image` and `label`)"
            )
    labels = np.asarray(table[section.label])
    if labels.dtype.kind not in "iu":
        raise UserError(f"{section.id}: the column {section.label!r} does not hold class numbers")
    names = getattr(table.features[section.label], "names", None)
    classes = names or [str(n) for n in range(int(labels.max(initial=0)) + 1)]
    pictures = [
        _pixels(row, f"{section.id} ({split}), row {number}")
        for number, row in enumerate(table[section.image])
    ]
    source = f"{section.id}, {split}, revision {commit}"
    return Images(pictures, labels.astype(np.int64), tuple(classes), source)


def _pixels(image: Any, place: str) -> Picture:
    if not hasattr(image, "convert"):
        raise UserError(f"{place}: no image, but {type(image).__name__}")
    try:
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{place} is not a whole image: {error}") from error
