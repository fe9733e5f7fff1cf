"""One measurement of this package, timed in its two parts."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn

from benchmarks.machine import synchronize
from blockcoupling.blocks import differentiable, find_blocks, record_decode
from blockcoupling.decompose import Decomposition, decompose
from blockcoupling.linearize import SameToken


@dataclass(frozen=True)
class Timed:
    """Seconds of the forward passes and of everything after them, and what was found."""

    forward: float
    rest: float
    found: Decomposition

    @property
    def seconds(self) -> float:
        """The whole measurement."""
        return self.forward + self.rest


def measure(model: nn.Module, ids: list[Tensor], k: int, method: str, full: bool = False) -> Timed:
    """Measure prompts in one batch: S, U, V and A of all blocks, last token."""
    device = ids[0].device
    with differentiable(model):
        blocks = find_blocks(model, ids[0][:, :4])
        synchronize(device)
        start = time.perf_counter()
        calls = [record_decode(model, blocks, one) for one in ids]
        synchronize(device)
        forward = time.perf_counter() - start
        start = time.perf_counter()
        found = decompose(
            SameToken(lambda block: [c[block] for c in calls]),
            len(blocks),
            k,
            method=method,  # type: ignore[arg-type]
            full=full,
        )
        synchronize(device)
    return Timed(forward, time.perf_counter() - start, found)


def miscoupling(found: Decomposition, k: int) -> Tensor:
    """m_k(i, j), `frobenius`, float64: (prompt, block, block_other)."""
    s = found.S[:, :, None, :k].double()
    a = found.A[..., :k, :k].double()
    return (a - torch.diag_embed(s)).flatten(-2).norm(dim=-1) / s.norm(dim=-1)


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
