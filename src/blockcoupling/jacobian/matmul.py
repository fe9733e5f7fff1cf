"""In which precision a block's matrix products are done: float32 unless asked otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from blockcoupling.config.choices import Matmul


@contextmanager
def full_float32(tf32: bool = False) -> Iterator[None]:
    """Let float32 products be float32's for a while, or TF32's, whatever was set before.

    TF32 (10 bits instead of 23) exists on some accelerators; a CPU has float32 all the same.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def recording(matmul: Matmul, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a block's graph is recorded: bfloat16 products are part of it."""
    if matmul == "bfloat16":
        # Weights converted anew each time: a cache of them would outlive the block.
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    return multiplying(matmul)


def multiplying(matmul: Matmul) -> AbstractContextManager[object]:
    """The context in which products go through a graph."""
    return full_float32(tf32=True) if matmul == "tf32" else nullcontext()
