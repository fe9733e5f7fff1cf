"""Image prompts in one file: JSON lines with an id and the image itself, as a PNG."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blockcoupling.config.images import ImagePrompts
from blockcoupling.config.section import parse
from blockcoupling.errors import UserError
from blockcoupling.sources.image_folder import read_image
from blockcoupling.sources.images import load_images
from blockcoupling.sources.jsonl import read_rows, refuse, write_rows
from blockcoupling.sources.pictures import Picture
from blockcoupling.sources.sampling import sampled, unique_names
from blockcoupling.store.part_names import name_problem


@dataclass(frozen=True)
class ImagePrompt:
    """An image with a stable identity, and facts on what it is and where it came from."""

    id: str
    picture: Picture
    facts: Mapping[str, Any] = field(default_factory=dict)


def load_image_prompts(spec: Mapping[str, Any]) -> list[ImagePrompt]:
    """Collect the images that a description names, sampled as it says.

    Args:
        spec: The fields of `config.images.ImagePrompts`; `dataset` and `source` are ignored.

    Returns:
        Images in the order of their source. An id is the first digits of the SHA-256 of the pixels;
        repeated ones get `~2`, `~3`, … over the whole source.

    Raises:
        UserError: The description or its images are missing or broken, or there are too few.
    """
    own = {key: value for key, value in spec.items() if key not in ("dataset", "source")}
    section = parse(ImagePrompts, own, "the description of the images")
    images = load_images(section.images, section.split)
    unique = unique_names()
    prompts = [
        ImagePrompt(
            unique(_digest(picture)),
            picture,
            {"class": images.classes[label], "source": images.source},
        )
        for picture, label in zip(images.pictures, images.labels.tolist(), strict=True)
    ]
    prompts, sample = sampled(prompts, section.prompts, section.seed, images.source, "images")
    return [ImagePrompt(p.id, p.picture, {**p.facts, **sample}) for p in prompts]


def write_image_prompts(prompts: Iterable[ImagePrompt], path: Path | str) -> None:
    """Write `{"id", "image", ...facts}` per line, the image a PNG in base64."""
    write_rows(path, ({"id": p.id, "image": _png(p.picture), **p.facts} for p in prompts))


def read_image_prompts(path: Path | str) -> list[ImagePrompt]:
    """Read what `write_image_prompts` wrote.

    Raises:
        UserError: Lists the lines that are broken or hold a text, and ids that occur twice.
    """
    rows, wrong = read_rows(path)
    prompts: dict[str, ImagePrompt] = {}
    for place, row in rows:
        if not isinstance(row.get("image"), str) or "id" not in row:
            wrong.append(
                f"{place}: no id and image; an image model is measured at images, such as "
                "`blockcoupling prompts` collects"
            )
            continue
        name = str(row["id"])
        if (problem := name_problem(name)) is not None:
            wrong.append(f"{place}: {problem}")
        elif name in prompts:
            wrong.append(f"{place}: the id {name} occurs twice")
        else:
            facts = {key: value for key, value in row.items() if key not in ("id", "image")}
            try:
                prompts[name] = ImagePrompt(name, _picture(row["image"], place), facts)
            except UserError as error:
                wrong.append(str(error))
    refuse(wrong)
    if not prompts:
        raise UserError(f"{path} holds no images")
    return list(prompts.values())


def _png(picture: Picture) -> str:
    png = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(png, "png")
    return base64.b64encode(png.getvalue()).decode()


def _picture(text: str, place: str) -> Picture:
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UserError(f"{place}: the image is not in base64 ({error})") from error
    return read_image(io.BytesIO(content), f"{place}: the image")


def _digest(picture: Picture) -> str:
    pixels = np.ascontiguousarray(picture)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:12]
