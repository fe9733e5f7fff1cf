"""The reference for models whose blocks are called in any way: autograd through the whole model.

Written apart from the package: one forward pass of the model as it is, in float64, in which a small
change is added to one token's hidden state on its way into every block.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def jacobians(
    model: nn.Module,
    path: str,
    given: Tensor,
    token: int = -1,
    dtype: torch.dtype = torch.float64,
    attention: str = "eager",
) -> np.ndarray:
    """Residual Jacobians of all blocks at one token, (block, d, d), of a copy of the model.

    Args:
        model: the model; its own forward is called.
        path: of the module list that holds its blocks, which may be passed several times each.
        given: token ids (1, token), or pixel values (1, channel, height, width).
        token: its position.
        dtype: of the copy's weights.
        attention: the implementation that the copy computes attention with.
    """
    model = copy.deepcopy(model).to(dtype).eval()
    for module in model.modules():
        config = getattr(module, "config", None)
        for name, value in (
            ("_attn_implementation", attention),
            ("_experts_implementation", "eager"),
        ):
            if hasattr(config, name):
                setattr(config, name, value)
        if isinstance(module, nn.BatchNorm2d):  # torch 2.13's gradient depends on the layout
            module.register_forward_hook(batch_norm)
    changes: list[Tensor] = []
    outputs: list[Tensor] = []

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        name = next(
            key
            for key, value in (*enumerate(args), *kwargs.items())
            if isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point()
        )
        hidden = args[name] if isinstance(name, int) else kwargs[name]
        change = torch.zeros(hidden.shape[-1], dtype=hidden.dtype, requires_grad=True)
        place = torch.zeros(hidden.shape[1], 1, dtype=hidden.dtype)
        place[token] = 1
        changes.append(change)
        hidden = hidden.detach() + place * change
        if isinstance(name, int):
            return (*args[:name], hidden, *args[name + 1 :]), kwargs
        return args, {**kwargs, name: hidden}

    def leave(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple | list) else output
        outputs.append(hidden[0, token])

    for block in model.get_submodule(path).children():
        block.register_forward_pre_hook(enter, with_kwargs=True)
        block.register_forward_hook(leave, with_kwargs=True)
    if given.is_floating_point():
        model(pixel_values=given.to(dtype))
    else:
        model(input_ids=given, use_cache=False)
    unit = torch.eye(outputs[0].shape[0], dtype=dtype)
    found = [
        torch.autograd.grad(y, change, unit, retain_graph=True, is_grads_batched=True)[0] - unit
        for y, change in zip(outputs, changes, strict=True)
    ]
    return torch.stack(found).double().numpy()


def batch_norm(module: nn.BatchNorm2d, args: tuple[Tensor], output: Tensor) -> Tensor:
    """A batch norm by its definition, in evaluation mode."""
    (x,) = args
    mean, deviation, weight, bias = (
        value[:, None, None]
        for value in (
            module.running_mean,
            (module.running_var + module.eps).sqrt(),
            module.weight,
            module.bias,
        )
    )
    return (x - mean) / deviation * weight + bias


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
