"""What an artifact is made of, in one short text: written into its entry, compared on reading."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from blockcoupling.errors import UserError
from blockcoupling.store.checksums import DIGEST, attributes

_known: dict[Path, tuple[tuple[int, int, int], str]] = {}
"""Digests of files that were read before, each with inode, size and time of change."""
_TICK = 2_000_000_000  # ns; file systems of old count two seconds


def content_digest(path: Path) -> str | None:
    """Return the digest of an artifact; None for a Zarr store that carries none.

    Of a file, SHA-256 of its bytes, as `sha256sum` prints it; read anew only where the file has
    changed. Of a Zarr store, which may be large, the one that it was sealed with.

    Raises:
        UserError: a store has no metadata.
        MeasurementError: its metadata are damaged.

    """
    if path.is_dir():
        return _of_store(path)
    found = path.stat()
    state = (found.st_ino, found.st_size, found.st_mtime_ns)
    known = _known.get(path)
    if known is not None and known[0] == state:
        return known[1]
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    # A file written to twice within a tick of the clock looks the same both times.
    if time.time_ns() - found.st_mtime_ns > _TICK:
        _known[path] = (state, digest)
    return digest


def _of_store(path: Path) -> str | None:
    if not (path / "zarr.json").is_file():
        raise UserError(f"{path} is no whole store: there is no zarr.json in it")
    found = attributes(path).get(DIGEST)
    return None if found is None else str(found)
