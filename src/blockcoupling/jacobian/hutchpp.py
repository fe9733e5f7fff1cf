"""The Frobenius norm of a Jacobian from products alone, with its standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blockcoupling.jacobian.operator import Operator
from blockcoupling.jacobian.svd import SingularTriples
from blockcoupling.jacobian.work import NORM_PROBES

if TYPE_CHECKING:
    from jaxtyping import Float


def hutchpp(
    operator: Operator, found: SingularTriples, seed: int
) -> tuple[Float[Tensor, " prompt"], Float[Tensor, " prompt"]]:
    """‖J‖_F and its standard error: exact for the known triples, random probes for the rest.

    ‖J‖_F² = Σ s_k² + E‖J (I − V Vᵀ) ω‖² for Gaussian ω (Hutch++, Meyer et al. 2021).
    """
    generator = torch.Generator().manual_seed(seed + 1)
    # The same probes for every prompt, so that its numbers do not depend on the batch.
    probes = torch.randn(operator.dimension, NORM_PROBES, generator=generator, dtype=torch.float64)
    probes = probes.to(operator.device, operator.dtype)
    probes = probes - found.V @ (found.V.mT @ probes)
    squares = operator.matmat(probes).double().square().sum(dim=1)
    total = found.S.double().square().sum(dim=1) + squares.mean(dim=1)
    norm = total.sqrt()
    error = squares.std(dim=1) / NORM_PROBES**0.5 / (2 * norm.clamp_min(1e-300))
    return norm.cpu(), error.cpu()
