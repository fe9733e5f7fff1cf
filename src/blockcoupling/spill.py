"""Arrays on disk for a while."""

from __future__ import annotations

import tempfile
import threading

import torch
from torch import Tensor


class Spill:
    """Jacobians on disk between the sweeps: their number does not add to the memory in use.

    Several threads may put and get.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile(prefix="blockcoupling-jacobians-")  # noqa: SIM115
        self._places: dict[int, tuple[int, torch.Size, torch.dtype, torch.device]] = {}

    def put(self, block: int, jacobian: Tensor) -> None:
        """Write a block's Jacobians, from whatever device."""
        array = jacobian.cpu().numpy()
        with self._lock:
            place = self._file.seek(0, 2)
            array.tofile(self._file)
            self._places[block] = (place, jacobian.shape, jacobian.dtype, jacobian.device)

    def get(self, block: int) -> Tensor:
        """Read them again, to the device that they came from."""
        place, shape, dtype, device = self._places[block]
        jacobian = torch.empty(shape, dtype=dtype)
        with self._lock:
            self._file.seek(place)
            self._file.readinto(jacobian.numpy().data)
        return jacobian.to(device)

    def __contains__(self, block: int) -> bool:
        return block in self._places

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
