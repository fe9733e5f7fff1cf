"""The ways in which a process allows torch to round float32 products, each undone afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_B: Any = torch.backends
ALLOWED: dict[str, tuple[Any, str, Any]] = {
    "nothing": (_B.cuda.matmul, "fp32_precision", "none"),
    "high, for all": (None, "", "high"),
    "medium, for all": (None, "", "medium"),
    "allow_tf32": (_B.cuda.matmul, "allow_tf32", True),
    "tf32 on a GPU": (_B.cuda.matmul, "fp32_precision", "tf32"),
    "tf32 everywhere": (_B, "fp32_precision", "tf32"),
    "bfloat16 on a CPU": (_B.mkldnn.matmul, "fp32_precision", "bf16"),
}
_PLACES = (
    _B,
    *(_B.cudnn, _B.mkldnn, _B.cuda.matmul, _B.cudnn.conv, _B.cudnn.rnn),
    *(_B.mkldnn.matmul, _B.mkldnn.conv, _B.mkldnn.rnn),
)


def precisions() -> list[str]:
    """What is allowed now, at every place."""
    return [place.fp32_precision for place in _PLACES]


@contextmanager
def allowed(how: str) -> Iterator[None]:
    """Allow it for a while."""
    before = precisions()
    place, name, value = ALLOWED[how]
    if place is None:
        torch.set_float32_matmul_precision(value)
    else:
        setattr(place, name, value)
    try:
        yield
    finally:
        for one, precision in zip(_PLACES, before, strict=True):
            one.fp32_precision = precision
