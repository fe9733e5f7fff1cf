"""The reference for m: whole Jacobians of a model's blocks, NumPy's SVD, and the formula.

Models are those of `architectures`, of three blocks each; a prompt is written as its token ids.
"""

from collections.abc import Sequence

import numpy as np
import torch
from full_jacobian import full_jacobian
from torch import nn
from transformers import PreTrainedModel


def numbers(text: str) -> list[int]:
    """A tokenizer: the text is its own token ids."""
    return [int(word) for word in text.split()]


def blocks_of(model: PreTrainedModel) -> Sequence[nn.Module]:
    (blocks,) = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == 3]
    return blocks


def jacobians(model: PreTrainedModel, text: str, token_in: int, token_out: int) -> np.ndarray:
    """(block, d, d), from a pass over the whole prompt."""
    ids = torch.tensor([numbers(text)])
    found = [full_jacobian(model, b, ids, token_in, token_out) for b in blocks_of(model)]
    return torch.stack(found).numpy()


def definition(j: np.ndarray, k: int, variant: str) -> np.ndarray:
    """m(i, j) of every pair of blocks from their Jacobians (block, d, d)."""
    u, s, vt = np.linalg.svd(j)
    u, s, v = u[:, :, :k], s[:, :k], vt.transpose(0, 2, 1)[:, :, :k]
    m = np.zeros((len(j), len(j)))
    for one in range(len(j)):
        for other in range(len(j)):
            a = u[other].T @ j[one] @ v[other]
            if variant == "swapped":
                a = v[other].T @ j[one] @ u[other]
            if variant in ("absolute", "absolute_trace", "swapped"):
                a = abs(a)
            target = np.diag(np.diag(a)) if variant == "offdiagonal" else np.diag(s[one])
            scale = s[one].sum() if variant == "absolute_trace" else np.linalg.norm(s[one])
            m[one, other] = np.linalg.norm(a - target) / scale
    return m
