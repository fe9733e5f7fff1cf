"""Images to measure at, in one file: JSON lines with an id and the picture itself, as a PNG."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blockcoupling.atomic import replacing
from blockcoupling.config.images import ImagePrompts
from blockcoupling.config.section import parse
from blockcoupling.errors import UserError
from blockcoupling.sources.image_folder import read_image
from blockcoupling.sources.images import load_images
from blockcoupling.sources.pictures import Picture
from blockcoupling.store.part_names import name_problem


@dataclass(frozen=True)
class ImagePrompt:
    """A picture with a stable identity, and facts on what it is and where it came from."""

    id: str
    picture: Picture
    facts: Mapping[str, Any] = field(default_factory=dict)


def load_image_prompts(spec: Mapping[str, Any]) -> list[ImagePrompt]:
    """The images that a description names, sampled as it says.

    Args:
        spec: the fields of `config.images.ImagePrompts`; `dataset` and `source` may be beside them.

    Returns:
        Images in the order of their source; an id begins the SHA-256 of the pixels, and one that
        occurs again gets `~2`, `~3`, … over the whole source.

    Raises:
        UserError: the description or what it names is missing or broken, or holds too few.
    """
    own = {key: value for key, value in spec.items() if key not in ("dataset", "source")}
    section = parse(ImagePrompts, own, "the description of the images")
    images = load_images(section.images, section.split)
    count: dict[str, int] = {}
    prompts = []
    for picture, label in zip(images.pictures, images.labels.tolist(), strict=True):
        name = _digest(picture)
        count[name] = count.get(name, 0) + 1
        name = name if count[name] == 1 else f"{name}~{count[name]}"
        facts = {"class": images.classes[label], "source": images.source}
        prompts.append(ImagePrompt(name, picture, facts))
    wanted = section.prompts
    if wanted is not None and wanted > len(prompts):
        raise UserError(
            f"{images.source} has {len(prompts)} images, {wanted} are asked for; lower `prompts`"
        )
    if wanted is None or wanted == len(prompts):
        return prompts
    seed = section.seed or 0
    chosen = sorted(random.Random(seed).sample(range(len(prompts)), wanted))
    sampled = {"sampled": wanted, "seed": seed}
    some = [prompts[number] for number in chosen]
    return [ImagePrompt(p.id, p.picture, {**p.facts, **sampled}) for p in some]


def write_image_prompts(prompts: Iterable[ImagePrompt], path: Path | str) -> None:
    """Write `{"id", "image", ...facts}` a line, the image a PNG in base64; whole or not at all."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        for prompt in prompts:
            png = io.BytesIO()
            Image.fromarray(np.asarray(prompt.picture)).save(png, "png")
            image = base64.b64encode(png.getvalue()).decode()
            row = {"id": prompt.id, "image": image, **prompt.facts}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_image_prompts(path: Path | str) -> list[ImagePrompt]:
    """Read what `write_image_prompts` wrote.

    Raises:
        UserError: naming the file and the line that is broken or holds a text, or an id that is
            there twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8: {error}") from error
    prompts: dict[str, ImagePrompt] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error})") from error
        if not isinstance(row, dict) or not isinstance(row.get("image"), str) or "id" not in row:
            raise UserError(
                f"{where}: no id and image; an image model is measured at images, such as "
                "`blockcoupling prompts` collects"
            )
        name = str(row["id"])
        if (problem := name_problem(name)) is not None:
            raise UserError(f"{where}: {problem}")
        if name in prompts:
            raise UserError(f"{where}: the id {name} is there already")
        facts = {key: value for key, value in row.items() if key not in ("id", "image")}
        prompts[name] = ImagePrompt(name, _picture(row["image"], where), facts)
    if not prompts:
        raise UserError(f"{path} holds no images")
    return list(prompts.values())


def _picture(text: str, where: str) -> Picture:
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UserError(f"{where}: the image is not in base64 ({error})") from error
    return read_image(io.BytesIO(content), f"{where}: the image")


def _digest(picture: Picture) -> str:
    pixels = np.ascontiguousarray(picture)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:12]
