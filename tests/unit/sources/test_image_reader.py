"""The one reader of pictures: what it turns, and what it refuses rather than changes."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import ViTImageProcessorPil

from blockcoupling.config.images import IMAGES, FolderImages
from blockcoupling.errors import UserError
from blockcoupling.sources import hub
from blockcoupling.sources.image_folder import read_image
from blockcoupling.sources.images import load_images
from blockcoupling.sources.preprocessing import prepared

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
ORIENTATION = 0x0112
# What the pixels are turned to by each value of the EXIF standard's orientation.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def from_file(content: bytes, place: Path, _: pytest.MonkeyPatch) -> np.ndarray:
    (place / "a.png").write_bytes(content)
    return np.asarray(read_image(place / "a.png"))


def from_folder(content: bytes, place: Path, _: pytest.MonkeyPatch) -> np.ndarray:
    (place / "test" / "cat").mkdir(parents=True)
    (place / "test" / "cat" / "a.png").write_bytes(content)
    return np.asarray(load_images(FolderImages(path=place), "test").pictures[0])


def from_hub(content: bytes, place: Path, patch: pytest.MonkeyPatch) -> np.ndarray:
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(1)})
    rows = {"img": [{"bytes": content, "path": None}], "label": [0]}
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(place / "table.parquet")
    stored = datasets.Dataset.from_parquet(
        str(place / "table.parquet"), features=features, cache_dir=str(place)
    )
    patch.setattr(hub, "dataset_table", lambda *_: (stored, "c0ffee"))
    section = IMAGES.kind({"id": "x/y"}).model_validate({"id": "x/y", "revision": "main"})
    return np.asarray(load_images(section, "test").pictures[0])  # type: ignore[arg-type]


SOURCES = pytest.mark.parametrize("read", [from_file, from_folder, from_hub])


def saved(image: Image.Image, form: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@SOURCES
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(
    read: Callable, orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found = read(saved(Image.fromarray(PIXELS), exif=exif), tmp_path, monkeypatch)
    np.testing.assert_array_equal(found, UPRIGHT[orientation](PIXELS))


def colours_of_16_bits() -> bytes:
    """A PNG of 16 bits per colour, which Pillow reads and does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width, _ = PIXELS.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PIXELS)
    about = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", about), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


GREY = PIXELS[..., 0]
TOO_MANY_BITS = {
    "16-bit PNG": saved(Image.fromarray(GREY.astype(np.uint16) * 256)),
    "16-bit TIFF": saved(Image.fromarray(GREY.astype(np.uint16) * 256), "tiff"),
    "int32 TIFF": saved(Image.fromarray(GREY.astype(np.int32) * 256), "tiff"),
    "float TIFF": saved(Image.fromarray(GREY.astype(np.float32)), "tiff"),
    "16-bit colours": colours_of_16_bits(),
}


@SOURCES
@pytest.mark.parametrize("kind", TOO_MANY_BITS)
def test_more_bits_than_eight_are_refused(
    read: Callable, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="more than eight bits per value"):
        read(TOO_MANY_BITS[kind], tmp_path, monkeypatch)


@SOURCES
def test_transparency_is_refused_where_there_is_any(
    read: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opaque = np.dstack([PIXELS, np.full_like(GREY, 255)])
    np.testing.assert_array_equal(
        read(saved(Image.fromarray(opaque)), tmp_path, monkeypatch), PIXELS
    )
    (tmp_path / "other").mkdir()
    opaque[0, 0, 3] = 254
    with pytest.raises(UserError, match="partly transparent"):
        read(saved(Image.fromarray(opaque)), tmp_path / "other", monkeypatch)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_what_eight_bits_hold_is_read_as_it_is(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("shape", [(3, 9), (9, 3), (3, 3), (1, 5), (4, 1)])
def test_small_pictures_keep_their_axes(shape: tuple[int, int]) -> None:
    """Each colour is constant, so that resizing keeps it: (value / 255 − 1/2) / (1/2)."""
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    colours = np.array([0, 102, 255], np.uint8)
    (values,) = prepared(processor, [np.broadcast_to(colours, (*shape, 3)).copy()])
    values = values.double()
    wanted = colours / 127.5 - 1
    np.testing.assert_allclose(values.mean((1, 2)).numpy(), wanted, atol=1e-6)
    assert float(values.flatten(1).std(1).max()) < 1e-6
