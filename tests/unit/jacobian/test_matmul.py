"""Float32 products are float32's within, and what was allowed before is allowed again after."""

from typing import Any

import pytest
import torch
from allowed_precision import ALLOWED, allowed, precisions

from blockcoupling.jacobian.matmul import full_float32, multiplying

_B: Any = torch.backends
KINDS = (_B.cuda.matmul, _B.cudnn.conv, _B.mkldnn.matmul)


@pytest.mark.parametrize("how", ALLOWED)
def test_float32_within_and_as_before_afterwards(how: str) -> None:
    with allowed(how):
        before = precisions()
        with full_float32():
            assert [kind.fp32_precision for kind in KINDS] == ["ieee"] * 3
            with multiplying("tf32"):
                assert [kind.fp32_precision for kind in KINDS] == ["tf32"] * 3
            assert [kind.fp32_precision for kind in KINDS] == ["ieee"] * 3
        assert precisions() == before


def test_as_before_after_an_error() -> None:
    with allowed("high, for all"):
        before = precisions()
        with pytest.raises(ValueError, match="stop"), full_float32():
            raise ValueError("stop")
        assert precisions() == before
