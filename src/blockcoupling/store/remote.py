"""Stores over http, from servers that answer range requests and from those that do not.

Zarr asks for parts of a file: the index of a shard, and the chunks that are wanted. A plain server
(`python -m http.server`) ignores that and sends the file as a whole, longer than what was asked
for; the part is then cut out here.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import FsspecStore, WrapperStore

from blockcoupling.errors import MeasurementError
from blockcoupling.store.checksums import DIGEST

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_ROOT = "zarr.json"
_KEPT = 64_000_000
"""Bytes of whole files that are kept, since more parts of them will be asked for."""


class Remote(WrapperStore[FsspecStore]):
    """A Zarr store at a url, read only."""

    def __init__(self, store: FsspecStore) -> None:
        super().__init__(store)
        self._files: OrderedDict[str, Buffer] = OrderedDict()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sealed = False
        self._whole = False
        """Whether the server has answered a request for a part with a whole file."""

    @classmethod
    def at(cls, url: str) -> Remote:
        """Return the store at an fsspec url."""
        return cls(FsspecStore.from_url(url, read_only=True))

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a file or a part of it; None if there is none.

        Raises:
            MeasurementError: a sealed store lacks a chunk, which is lost.
        """
        found = await self._found(key, prototype, byte_range)
        if key == _ROOT and found is not None:
            self._sealed = DIGEST in json.loads(found.to_bytes()).get("attributes", {})
        if found is None and self._sealed and not key.endswith((_ROOT, ".zattrs", ".zgroup")):
            url = self._store.fs.unstrip_protocol(self._store.path)
            raise MeasurementError(f"{url}: the file {key} of the store is gone")
        return found

    async def _found(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        if byte_range is None:
            return await self._store.get(key, prototype)
        if not self._whole and not isinstance(byte_range, OffsetByteRequest):
            found = await self._store.get(key, prototype, byte_range)
            if found is None or len(found) <= _length(byte_range):
                return found
            self._whole = True
        async with self._turns[key]:
            if key not in self._files:
                found = await self._store.get(key, prototype)
                if found is None:
                    return None
                self._keep(key, found)
            self._files.move_to_end(key)
            return _part(self._files[key], byte_range)

    def _keep(self, key: str, file: Buffer) -> None:
        self._files[key] = file
        while sum(map(len, self._files.values())) > _KEPT and len(self._files) > 1:
            self._files.popitem(last=False)


def _length(byte_range: RangeByteRequest | SuffixByteRequest) -> int:
    """Return the bytes of a part, at most. A whole file has more of them, or is the part."""
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.end - byte_range.start
    return byte_range.suffix


def _part(file: Buffer, byte_range: ByteRequest) -> Buffer:
    if isinstance(byte_range, RangeByteRequest):
        return file[byte_range.start : byte_range.end]
    if isinstance(byte_range, OffsetByteRequest):
        return file[byte_range.offset :]
    return file[max(0, len(file) - byte_range.suffix) :]
