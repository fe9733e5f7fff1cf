"""The reference: a block's residual Jacobian from a pass of the whole model, one row at a time.

Written apart from the package: a small change is added to the hidden state on its way into a block,
inside an ordinary forward pass of the whole prompt, and the block's output is differentiated with
respect to that change.
"""

import torch
from torch import Tensor, nn


def full_jacobian(
    model: nn.Module, block: nn.Module, ids: Tensor, token_in: int, token_out: int
) -> Tensor:
    """∂ f(X)_{token_out} / ∂ x_{token_in}, (d, d), rows = output."""
    seen: dict[str, Tensor] = {}

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        hidden = args[0] if args else kwargs["hidden_states"]
        change = torch.zeros(hidden.shape[-1], dtype=hidden.dtype, requires_grad=True)
        seen["change"] = change
        place = torch.zeros(hidden.shape[1], 1, dtype=hidden.dtype)
        place[token_in] = 1
        hidden = hidden.detach() + place * change
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def leave(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        seen["output"] = output[0] if isinstance(output, tuple) else output

    handles = [
        block.register_forward_pre_hook(enter, with_kwargs=True),
        block.register_forward_hook(leave, with_kwargs=True),
    ]
    try:
        model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    output = seen["output"][0, token_out]
    rows = [
        torch.autograd.grad(component, seen["change"], retain_graph=True)[0] for component in output
    ]
    jacobian = torch.stack(rows)
    if token_in == token_out:
        jacobian = jacobian - torch.eye(len(rows), dtype=jacobian.dtype)
    return jacobian
