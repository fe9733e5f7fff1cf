"""The last block followed by the model's final norm, as the released code measures it.

That code differentiates between the entries of `hidden_states`, and the last entry has passed the
final norm: its last map is x ↦ norm(F^L(x)), not F^L. No architecture is named here.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.agreement import identical
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.running import Given, run


class NormedBlock(nn.Module):
    """The last block and the final norm after it, called with the block's own arguments."""

    def __init__(self, block: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.block, self.norm = block, norm

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The norm of the hidden state that the block returns."""
        output = self.block(*args, **kwargs)
        return self.norm(output[0] if isinstance(output, tuple | list) else output)


def find_final_norm(model: nn.Module, blocks: Blocks, given: Given) -> nn.Module:
    """Find the final norm by watching one forward pass.

    It is the module that receives the last block's output X^L and returns the model's last hidden
    state.

    Args:
        model: the model.
        blocks: its blocks.
        given: a short prompt's token ids, (1, token), or an image's pixel values.

    Raises:
        UserError: no module does that.
    """
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def watch(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            calls.append((module, args[0], output))

    inside = {part for block in blocks.modules for part in block.modules()}
    last: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        last.append(output[0] if isinstance(output, tuple | list) else output)

    with ExitStack() as hooks, torch.no_grad():
        hooks.callback(blocks.modules[-1].register_forward_hook(keep).remove)
        for module in model.modules():
            # A hook on the model itself would make its own forward, head and all, the one to call.
            if module not in inside and module is not model:
                hooks.callback(module.register_forward_hook(watch).remove)
        output = run(model, given, use_cache=False)
    final = getattr(output, "last_hidden_state", None)
    if final is None:
        final = output if isinstance(output, Tensor) else output[0]
    from_last = [(module, after) for module, before, after in calls if identical(before, last[-1])]
    # If the head was run as well, the last hidden state is not part of the output.
    headed = final.shape != last[-1].shape
    for module, after in from_last:
        if (identical(after, final) or headed) and _changed(last[-1], after):
            return module
    if identical(last[-1], final):
        why = "its last hidden state is its last block's output"
    else:
        why = "no single module turns its last block's output into its last hidden state"
    raise UserError(
        f"{type(model).__name__} has no final norm to measure the last block after: {why}. Measure "
        "it without `final_norm` (and without the preset `released`, which sets it)."
    )


def after_norm(call: BlockCall, norm: nn.Module) -> BlockCall:
    """A recorded call of the last block, followed by the final norm."""
    with torch.no_grad():
        output = norm(call.output)
    return replace(call, block=NormedBlock(call.block, norm), output=output)


def _changed(before: Tensor, after: Tensor) -> bool:
    return before.shape == after.shape and not identical(before, after)
