"""The reference for models whose blocks are called in any way: autograd through the whole model.

Written apart from the package: one forward pass of the model as it is, in float64, in which a small
change is added to one token's hidden state on its way into every block.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn


def jacobians(
    model: nn.Module,
    path: str,
    ids: Tensor,
    token: int = -1,
    dtype: torch.dtype = torch.float64,
) -> np.ndarray:
    """Residual Jacobians of all blocks at one token, (block, d, d), of a copy of the model.

    Args:
        model: the model; its own forward is called.
        path: of the module list that holds its blocks.
        ids: (1, token).
        token: its position.
        dtype: of the copy's weights.
    """
    model = copy.deepcopy(model).to(dtype).eval()
    for module in model.modules():
        config = getattr(module, "config", None)
        for name in ("_attn_implementation", "_experts_implementation"):
            if hasattr(config, name):
                setattr(config, name, "eager")
    seen: dict[int, list[Tensor]] = {}
    handles = []
    for index, block in enumerate(model.get_submodule(path)):

        def enter(
            module: nn.Module, args: tuple, kwargs: dict, index: int = index
        ) -> tuple[tuple, dict]:
            hidden = args[0] if args else kwargs["hidden_states"]
            change = torch.zeros(hidden.shape[-1], dtype=hidden.dtype, requires_grad=True)
            place = torch.zeros(hidden.shape[1], 1, dtype=hidden.dtype)
            place[token] = 1
            seen[index] = [change]
            hidden = hidden.detach() + place * change
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        def leave(
            module: nn.Module, args: tuple, kwargs: dict, output: object, index: int = index
        ) -> None:
            hidden = output[0] if isinstance(output, tuple | list) else output
            seen[index].append(hidden[0, token])

        handles.append(block.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(block.register_forward_hook(leave, with_kwargs=True))
    model(input_ids=ids, use_cache=False)
    found = []
    for change, output in (seen[index] for index in range(len(seen))):
        rows = [torch.autograd.grad(y, change, retain_graph=True)[0] for y in output]
        found.append(torch.stack(rows) - torch.eye(len(rows), dtype=output.dtype))
    return torch.stack(found).double().numpy()


def coupling(jacobian: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """S (block, k), and − mean over i ≠ j of ‖A_ij − S_i‖_F / ‖S_i‖, A_ij = U_jᵀ J_i V_j."""
    u, s, vt = np.linalg.svd(jacobian)
    u, s, v = u[:, :, :k], s[:, :k], vt.transpose(0, 2, 1)[:, :, :k]
    blocks = range(len(jacobian))
    m = [
        np.linalg.norm(u[j].T @ jacobian[i] @ v[j] - np.diag(s[i])) / np.linalg.norm(s[i])
        for i in blocks
        for j in blocks
        if i != j
    ]
    return s, -float(np.mean(m))
