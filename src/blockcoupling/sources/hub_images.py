"""Labelled images of a dataset of the Hugging Face hub."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from blockcoupling.config.images import HubImages, Split
from blockcoupling.errors import UserError
from blockcoupling.sources.image_folder import read_image
from blockcoupling.sources.pictures import Images


def read_hub_images(section: HubImages, split: Split) -> Images:
    """Download one split of a dataset, and read its columns of images and classes.

    Raises:
        UserError: The dataset, split, revision or network is missing, or the columns are not those
            that the section names.
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
    if type(table.features[section.image]).__name__ != "Image":
        raise UserError(f"{section.id}: the column {section.image!r} does not hold images")
    from datasets import Image

    files = table.cast_column(section.image, Image(decode=False))[section.image]
    pictures = []
    for number, file in enumerate(files):
        place = f"{section.id} ({split}), row {number}"
        if file is None:
            raise UserError(f"{place}: there is no image")
        held = file["bytes"]
        content = Path(file["path"]) if held is None else io.BytesIO(held)
        pictures.append(read_image(content, place))
    source = f"{section.id}, {split}, revision {commit}"
    return Images(pictures, labels.astype(np.int64), tuple(classes), source)
