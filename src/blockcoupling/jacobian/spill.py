"""Temporary arrays on disk."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Hashable

import torch
from torch import Tensor

from blockcoupling.errors import UserError


class Spill:
    """Jacobians on disk between the sweeps, so that their number does not add to memory.

    Threads may share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        try:
            self._file = tempfile.TemporaryFile(prefix="blockcoupling-jacobians-")  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"no temporary file for Jacobians ({error.strerror}): set TMPDIR to a writable "
                "directory with enough space"
            ) from error
        self._places: dict[Hashable, tuple[int, torch.Size, torch.dtype, torch.device]] = {}

    def put(self, key: Hashable, jacobian: Tensor) -> None:
        """Write Jacobians under a key."""
        array = jacobian.cpu().numpy()
        with self._lock:
            place = self._file.seek(0, 2)
            try:
                array.tofile(self._file)
            except OSError as error:
                raise UserError(
                    f"no space for {array.nbytes / 1e9:.2g} GB of Jacobians in the temporary "
                    f"directory {tempfile.gettempdir()} ({error}): set TMPDIR to a directory with "
                    "space for all blocks (4 d² bytes a block and prompt), or use the method "
                    "krylov, which needs none"
                ) from error
            self._places[key] = (place, jacobian.shape, jacobian.dtype, jacobian.device)

    def get(self, key: Hashable) -> Tensor:
        """Read them to the device that they came from."""
        place, shape, dtype, device = self._places[key]
        jacobian = torch.empty(shape, dtype=dtype)
        with self._lock:
            self._file.seek(place)
            self._file.readinto(jacobian.numpy().data)
        return jacobian.to(device)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._places

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
