"""Digests of content: SHA-256, in hexadecimal digits, of JSON values and of files.

Large files that rarely change (weights) are hashed once: `remembered_digest` keeps their digests in
~/.cache/blockcoupling (or the directory BLOCKCOUPLING_CACHE) together with size, times and inode,
so that asking again costs a `stat`.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A file changed within this time of being hashed may change again without a trace in its times.
_UNSETTLED_NS = 2 * 10**9


def json_digest(value: Any) -> str:
    """Digest of a JSON value; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path | str) -> str:
    """Digest of a file's bytes, as `sha256sum` prints it.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remembered_digest(path: Path) -> str:
    """Digest of a file's bytes, remembered between processes until the file is written to.

    Args:
        path: the file, without links on the way.

    Raises:
        OSError: the file cannot be read.
    """
    stamp = _stamp(path)
    memory = _memory(path)
    if (known := _remembered(memory, stamp)) is not None:
        return known
    begun = time.time_ns()
    digest = file_digest(path)
    settled = max(stamp["mtime_ns"], stamp["ctime_ns"]) < begun - _UNSETTLED_NS
    if settled and _stamp(path) == stamp:
        _remember(memory, {**stamp, "path": str(path), "sha256": digest})
    return digest


def remembered_tree_digest(directory: Path) -> str:
    """Digest of the names and bytes of all files in a directory, remembered as a whole.

    Args:
        directory: without links on the way; links in it count as the files they lead to.

    Raises:
        OSError: a file cannot be read.
    """
    files = {
        str(each.relative_to(directory)): each.resolve()
        for each in sorted(directory.rglob("*"))
        if each.is_file()
    }
    stamps = {name: _stamp(file) for name, file in files.items()}
    stamp = {"files": json_digest(stamps)}
    memory = _memory(directory)
    if (known := _remembered(memory, stamp)) is not None:
        return known
    begun = time.time_ns()
    digest = json_digest({name: file_digest(file) for name, file in files.items()})
    newest = max((max(each["mtime_ns"], each["ctime_ns"]) for each in stamps.values()), default=0)
    if newest < begun - _UNSETTLED_NS and stamps == {n: _stamp(f) for n, f in files.items()}:
        _remember(memory, {**stamp, "path": str(directory), "sha256": digest})
    return digest


def _stamp(path: Path) -> dict[str, int]:
    """What changes when a file is written to, replaced, or given back its old time."""
    found = path.stat()
    return {
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
        "inode": found.st_ino,
        "device": found.st_dev,
    }


def _memory(path: Path) -> Path:
    place = os.environ.get("BLOCKCOUPLING_CACHE") or (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blockcoupling"
    )
    name = hashlib.sha256(str(path).encode()).hexdigest()[:32]
    return Path(place) / "digests" / f"{name}.json"


def _remembered(memory: Path, stamp: Mapping[str, Any]) -> str | None:
    try:
        known = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return None  # missing or cut short: the file is hashed again
    same = all(known.get(key) == value for key, value in stamp.items())
    return known.get("sha256") if same else None


def _remember(memory: Path, entry: Mapping[str, Any]) -> None:
    """Keep a digest for next time. Several processes may do so at once, each with its own file."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=memory.parent)
        with os.fdopen(handle, "w") as stream:
            json.dump(entry, stream)
        Path(fresh).replace(memory)
    except OSError:
        return  # a home directory without write access: the file is hashed again next time
