"""Images in files, with a folder for each class."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from blockcoupling.errors import UserError
from blockcoupling.sources.jsonl import refuse
from blockcoupling.sources.pictures import Images, Picture

# Pillow's modes of pixels that RGB of eight bits can hold.
_EIGHT_BITS = frozenset(
    ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
)
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"))


def read_folder(path: Path) -> Images:
    """Read `path/CLASS/FILE`; classes and files in alphabetical order.

    Raises:
        UserError: There is no such folder, no class, a class without images, or broken image
            files, which are listed.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a directory; it should hold a folder of images per class")
    classes = sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")
    if not classes:
        raise UserError(f"{path} holds no folders; it should hold a folder of images per class")
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
    refuse(broken)
    return Images(pictures, np.array(labels, np.int64), tuple(files), str(path))


def image_files(path: Path) -> list[Path]:
    """The image files of a folder, in alphabetical order."""
    return sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)


def read_image(path: Path | BinaryIO, name: str | None = None) -> Picture:
    """Read the pixels of an image file, as RGB, turned as its EXIF orientation says.

    Args:
        path: The file, or its content.
        name: Its name in messages; None: its path.

    Raises:
        UserError: It cannot be read, is incomplete, is larger than any real image, or holds what
            RGB of eight bits cannot: more bits, or transparency.
    """
    name = str(path) if name is None else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _rgb(image, name)
    except FileNotFoundError:
        raise UserError(f"there is no file {name}") from None
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{name} is too large an image: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name} is not a whole image: {error}") from error


def _rgb(image: Image.Image, name: str) -> Picture:
    # Pillow reads 16-bit colours as eight bits; how they are stored is in its tiles until then.
    stored = str([tile[3] for tile in getattr(image, "tile", ())])
    if image.mode not in _EIGHT_BITS or ";16" in stored:
        raise UserError(
            f"{name} has more than eight bits per value, or values that are not colours (Pillow's "
            f"mode {image.mode}), which would be cut off; save it as RGB with eight bits"
        )
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        opacity = upright.convert("RGBA").getchannel("A").getextrema()
        if opacity != (255, 255):
            raise UserError(
                f"{name} is partly transparent, and what is seen depends on what is behind it; "
                "save it without transparency"
            )
    return np.asarray(upright.convert("RGB"))
