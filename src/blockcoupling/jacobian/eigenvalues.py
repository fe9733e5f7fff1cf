"""All eigenvalues of Jacobians, which are not symmetric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Complex, Float
    from torch import Tensor


def eigenvalues(
    jacobian: Float[Tensor, "prompt embed embed"],
) -> Complex[Tensor, "prompt embed"]:
    """All eigenvalues of each matrix, the largest modulus first; on the CPU.

    Conjugate pairs stay together, the one with the positive imaginary part first. Found in float64:
    those of a matrix far from normal are sensitive to rounding.
    """
    found = torch.linalg.eigvals(jacobian.double().cpu())
    order = found.imag.sign().argsort(dim=-1, descending=True, stable=True)
    found = found.gather(-1, order)
    # Conjugates have one modulus up to rounding: compared in float32.
    order = found.abs().float().argsort(dim=-1, descending=True, stable=True)
    return found.gather(-1, order).to(torch.complex64)
