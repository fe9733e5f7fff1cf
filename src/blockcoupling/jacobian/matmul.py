"""In which precision a block's matrix products are done: float32 unless asked otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from blockcoupling.config.choices import Matmul

_BACKENDS: Any = torch.backends  # its parts come into being as they are asked for

# Every kind of product whose float32 torch may round on the way. Convolutions are rounded on a GPU
# unless one says otherwise, which a state space block would carry into its Jacobian.
_KINDS: tuple[Any, ...] = (
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn.conv,
    _BACKENDS.cudnn.rnn,
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
    _BACKENDS.mkldnn.rnn,
)


@contextmanager
def full_float32(tf32: bool = False) -> Iterator[None]:
    """Let float32 products be float32's for a while, or TF32's, whatever was set before.

    TF32 (10 bits instead of 23) exists on some accelerators; a CPU has float32 all the same.
    """
    # By kind: torch's older, global switches refuse to be read once one of these has been set.
    before = [kind.fp32_precision for kind in _KINDS]
    try:
        for kind in _KINDS:
            kind.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for kind, precision in zip(_KINDS, before, strict=True):
            kind.fp32_precision = precision


def recording(matmul: Matmul, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a block's graph is recorded: bfloat16 products are part of it."""
    if matmul == "bfloat16":
        # Weights converted anew each time: a cache of them would outlive the block.
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    return multiplying(matmul)


def multiplying(matmul: Matmul) -> AbstractContextManager[object]:
    """The context in which products go through a graph."""
    return full_float32(tf32=True) if matmul == "tf32" else nullcontext()
