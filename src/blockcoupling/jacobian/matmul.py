"""The precision of a block's matrix products: float32 unless set otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from blockcoupling.config.choices import Matmul

_BACKENDS: Any = torch.backends  # its attributes are created on access

# Every kind of product whose float32 torch may round. On a GPU convolutions are rounded by default,
# which would change the Jacobian of a state space block.
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
    """A context in which float32 products have the precision of float32, or of TF32.

    TF32 (10 bits instead of 23) exists on some accelerators; a CPU uses float32 in any case.
    """
    # By kind: torch's older, global switches cannot be read after one of these has been set.
    before = [kind.fp32_precision for kind in _KINDS]
    try:
        for kind in _KINDS:
            kind.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for kind, precision in zip(_KINDS, before, strict=True):
            kind.fp32_precision = precision


def recording(matmul: Matmul, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a block's graph is recorded; bfloat16 products are part of it."""
    if matmul == "bfloat16":
        # Weights are converted each time: a cache of them would outlive the block.
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    return multiplying(matmul)


def multiplying(matmul: Matmul) -> AbstractContextManager[object]:
    """The context of products with a recorded graph."""
    return full_float32(tf32=True) if matmul == "tf32" else nullcontext()
