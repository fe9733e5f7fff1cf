"""Images in files, a folder for each class."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from blockcoupling.errors import UserError
from blockcoupling.sources.pictures import Images, Picture

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"))
_SHOWN = 10


def read_folder(path: Path) -> Images:
    """Read `path/CLASS/FILE`; classes and files in alphabetical order.

    Raises:
        UserError: no folder, no classes, none in a class, or files that are no whole image, which
            are all named.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no directory; it is to hold a folder of images for each class")
    classes = sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")
    if not classes:
        raise UserError(f"{path} holds no folders; it is to hold one of images for each class")
    files = {each.name: image_files(each) for each in classes}
    if empty := [name for name, found in files.items() if not found]:
        raise UserError(f"{path}: no image files in {', '.join(empty)}")
    pictures, labels, broken = [], [], []
    for label, found in enumerate(files.values()):
        for file in found:
            try:
                pictures.append(read_image(file))
                labels.append(label)
            except UserError as error:
                broken.append(str(error))
    if broken:
        more = [f"... and {len(broken) - _SHOWN} more"] if len(broken) > _SHOWN else []
        raise UserError("\n".join([*broken[:_SHOWN], *more]))
    return Images(pictures, np.array(labels, np.int64), tuple(files), str(path))


def image_files(path: Path) -> list[Path]:
    """The image files of a folder, in alphabetical order."""
    return sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)


def read_image(path: Path | BinaryIO, name: str | None = None) -> Picture:
    """The pixels of an image file, as RGB.

    Args:
        path: the file, or its content.
        name: what to call it in a sentence; None: by its path.

    Raises:
        UserError: it cannot be read, is not a whole image, or is larger than any real one.
    """
    name = str(path) if name is None else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"there is no file {name}") from None
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{name} is too large an image: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name} is not a whole image: {error}") from error
