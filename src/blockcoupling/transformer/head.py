"""A model's logits for any state after its last block: its own final norm and head, no blocks.

The model's own forward runs with every block skipped, so that everything it does around its blocks
(norms, scaling, soft caps) is included and no architecture is named.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.recording import record_calls
from blockcoupling.transformer.running import replaced_forward

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class Passage:
    """One forward pass of a model without a cache.

    Attributes:
        input_ids: (prompt, token).
        calls: of the blocks, first to last.
        outputs: what each block returned, unchanged.
    """

    input_ids: Int[Tensor, "prompt token"]
    calls: list[BlockCall]
    outputs: list[Any]


def record_passage(
    model: nn.Module, blocks: Blocks, input_ids: Int[Tensor, "prompt token"]
) -> Passage:
    """Record a forward pass without a cache.

    Raises:
        CannotDecode: a block writes into its arguments.
    """
    outputs: list[Any] = []
    with ExitStack() as hooks:
        for module in set(blocks.modules):
            handle = module.register_forward_hook(lambda m, args, output: outputs.append(output))
            hooks.callback(handle.remove)
        calls = record_calls(model, blocks, input_ids, use_cache=False)
    return Passage(input_ids, calls, outputs)


def logits_after(
    model: nn.Module, blocks: Blocks, passage: Passage, hidden: Float[Tensor, "prompt token embed"]
) -> Float[Tensor, "prompt token word"]:
    """The logits of every token if the last block had returned `hidden`.

    Args:
        model: the model, with its head.
        blocks: its blocks.
        passage: the recorded forward pass of the tokens.
        hidden: a state of all its tokens.

    Raises:
        UserError: the model returns no logits.
    """
    returned = [
        _in_place_of(call.output, output, hidden)
        for call, output in zip(passage.calls, passage.outputs, strict=True)
    ]
    waiting = iter(returned)
    with torch.no_grad(), replaced_forward(blocks.modules, lambda *a, **k: next(waiting)):
        output = model(input_ids=passage.input_ids, use_cache=False)
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.shape[:2] != passage.input_ids.shape:
        raise UserError(
            f"{type(model).__name__} returns no logits for every token (it has no head to predict "
            "tokens with): ablation damage is measured on the predictions of causal language models"
        )
    return logits


def _in_place_of(recorded: Tensor, output: Any, hidden: Tensor) -> Any:
    """A block's output with another hidden state in it."""
    if isinstance(output, Tensor):
        return hidden
    place = next(n for n, v in enumerate(output) if _is(v, recorded))
    parts = [hidden if n == place else value for n, value in enumerate(output)]
    return type(output)._make(parts) if hasattr(output, "_make") else type(output)(parts)


def _is(value: Any, recorded: Tensor) -> bool:
    return isinstance(value, Tensor) and value.data_ptr() == recorded.data_ptr()
