"""CIFAR-10 from files: the binary or the Python archive, unpacked or not, or arrays in an npz.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. The Python archive holds
pickles, and loading a pickle can run code: here its operations are read, but not executed. The
result must be the published images, by count and checksum.
"""

from __future__ import annotations

import gzip
import hashlib
import pickletools
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from blockcoupling.config.images import Split
from blockcoupling.errors import UserError, system_sentence
from blockcoupling.sources.pictures import Images

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
COUNT = {"train": 50_000, "test": 10_000}
SIDE = 32
_BATCH = 10_000
_PIXELS = 3 * SIDE * SIDE
_BATCHES = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}

SHA256 = {
    "train": "a0181da372c0d63a5920fdbea2ec3f83ecbc552d378218e1cb473cf634941a3b",
    "test": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
"""SHA-256 of all images, each a label and then its 3,072 values, red before green before blue: the
content of the binary archive's files, one after the other."""

Records = UInt8[np.ndarray, "image 3073"]
"""A label and then the red, the green and the blue values of an image, row by row."""


def read_cifar10(path: Path, split: Split) -> Images:
    """Read one split of CIFAR-10.

    Args:
        path: a directory or an archive (`cifar-10-binary.tar.gz`, `cifar-10-python.tar.gz`) with
            the published batches, a directory with `cifar10_train.npz` and `cifar10_test.npz`
            (arrays `images`, N × 32 × 32 × 3, and `labels`, both 8-bit), or one such file.
        split: which.

    Raises:
        UserError: no such files there, or they do not hold the published images.
    """
    try:
        records = _records(path, split)
    except OSError as error:
        raise UserError(f"cannot read {path}: {system_sentence(error)}") from error
    if len(records) != COUNT[split]:
        raise UserError(
            f"{path}: {len(records)} images in the {split} split of CIFAR-10, which has "
            f"{COUNT[split]}"
        )
    if (digest := hashlib.sha256(records.tobytes()).hexdigest()) != SHA256[split]:
        raise UserError(
            f"{path}: not the published {split} images of CIFAR-10, or not in their order: the "
            f"SHA-256 of labels and pixels is {digest[:16]}…, not {SHA256[split][:16]}…; download "
            "the archive again"
        )
    planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return Images(
        list(np.ascontiguousarray(planes.transpose(0, 2, 3, 1))),
        records[:, 0].astype(np.int64),
        CLASSES,
        f"CIFAR-10, {split}",
    )


def _records(path: Path, split: Split) -> Records:
    if path.is_file() and path.suffix == ".npz":
        return _from_npz(path)
    if path.is_file() and not tarfile.is_tarfile(path):
        raise UserError(
            f"{path} is neither a tar archive nor an npz file; give the directory or the archive "
            "of CIFAR-10's batches (cifar-10-binary.tar.gz)"
        )
    if path.is_file():
        return _from_archive(path, split)
    if not path.is_dir():
        raise UserError(f"{path} does not exist")
    if (arrays := path / f"cifar10_{split}.npz").is_file():
        return _from_npz(arrays)
    for place in (path, path / "cifar-10-batches-bin", path / "cifar-10-batches-py"):
        files = {file.name: file for file in place.iterdir()} if place.is_dir() else {}
        if (found := _batches(set(files), split)) is not None:
            return np.concatenate([_batch(files[n].read_bytes(), files[n]) for n in found])
    raise UserError(
        f"{path} holds no CIFAR-10: neither {_BATCHES[split][0]}.bin (its binary archive), nor "
        f"{_BATCHES[split][0]} (the Python archive), nor cifar10_{split}.npz"
    )


def _batches(names: set[str], split: Split) -> list[str] | None:
    """Names of a split's batches, of the binary or the Python form, where all are there."""
    for suffix in (".bin", ""):
        wanted = [name + suffix for name in _BATCHES[split]]
        if names.issuperset(wanted):
            return wanted
        if names.intersection(wanted):
            missing = sorted(set(wanted) - names)
            raise UserError(f"CIFAR-10 is not complete: {', '.join(missing)} is missing")
    return None


def _from_archive(path: Path, split: Split) -> Records:
    try:
        with tarfile.open(path) as archive:
            members = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}
            if (found := _batches(set(members), split)) is None:
                raise UserError(f"{path} is not an archive of CIFAR-10: it has no {split} batches")
            parts = []
            for name in found:
                stream = archive.extractfile(members[name])
                assert stream is not None
                parts.append(_batch(stream.read(), path / name))
            return np.concatenate(parts)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged: {error}; download it again") from error


def _batch(content: bytes, path: Path) -> Records:
    if path.suffix == ".bin":
        if len(content) != _BATCH * (1 + _PIXELS):
            raise UserError(
                f"{path} has {len(content)} bytes; a batch of CIFAR-10 has {_BATCH * (1 + _PIXELS)}"
            )
        return np.frombuffer(content, np.uint8).reshape(_BATCH, 1 + _PIXELS)
    labels, pixels = _read_pickled_batch(content, path)
    return np.concatenate([labels[:, None], pixels], axis=1)


def _read_pickled_batch(
    content: bytes, path: Path
) -> tuple[UInt8[np.ndarray, " image"], UInt8[np.ndarray, "image 3072"]]:
    """Labels and pixels of a batch of the Python archive, by reading its operations.

    A batch is a dictionary: `labels` is followed by integers, `data` by an array, whose bytes are
    the one string as long as all pixels.
    """
    labels: list[int] = []
    pixels: bytes | None = None
    key = ""
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in _STRINGS:
                assert isinstance(argument, str | bytes | bytearray)
                raw = argument.encode("latin-1") if isinstance(argument, str) else bytes(argument)
                if key == "data" and len(raw) == _BATCH * _PIXELS:
                    pixels = raw
                elif raw in (b"labels", b"data", b"filenames", b"batch_label"):
                    key = raw.decode()
            elif key == "labels" and operation.name in _INTEGERS:
                assert isinstance(argument, int)
                labels.append(argument)
    except (ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{path} is not a batch of CIFAR-10's Python archive: {error}") from error
    if pixels is None or len(labels) != _BATCH or not 0 <= min(labels) <= max(labels) < 10:
        raise UserError(
            f"{path} is not a batch of CIFAR-10's Python archive: {len(labels)} labels and "
            f"{'no pixels' if pixels is None else 'pixels'} found in it"
        )
    flat = np.frombuffer(pixels, np.uint8).reshape(_BATCH, _PIXELS)
    return np.array(labels, np.uint8), flat


_STRINGS = frozenset(
    (
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_INTEGERS = frozenset(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"))


def _from_npz(path: Path) -> Records:
    def array(name: str) -> np.ndarray:
        try:
            return np.asarray(arrays[name])
        except KeyError:
            raise UserError(f"{path} has no array {name!r}; it has {', '.join(arrays)}") from None
        except ValueError as error:
            raise UserError(
                f"{path}: {name!r} is not a plain array of numbers ({error}); pickled objects are "
                "not read"
            ) from error

    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = array("images"), array("labels")
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise UserError(f"{path} is not an npz file, or damaged: {error}") from error
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
        raise UserError(
            f"{path}: images are {images.dtype} of shape {images.shape}, not 8-bit, N × 32 × 32 × 3"
        )
    if labels.shape != images.shape[:1] or not ((labels >= 0) & (labels < 10)).all():
        raise UserError(f"{path}: labels are not one number from 0 to 9 for each of the images")
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1)
