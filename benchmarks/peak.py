"""Peak memory in use while something runs."""

from __future__ import annotations

import gc
import threading
from types import TracebackType

import torch


class PeakMemory:
    """Peak memory in use within a `with`, above what was in use before it, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            return self
        import psutil

        process = psutil.Process()
        self._before = process.memory_info().rss
        self._peak = self._before
        self._stop = threading.Event()

        def watch() -> None:
            while not self._stop.is_set():
                self._peak = max(self._peak, process.memory_info().rss)
                self._stop.wait(0.002)

        self._watcher = threading.Thread(target=watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._before
            return
        self._stop.set()
        self._watcher.join()
        self.bytes = self._peak - self._before
