"""A model's logits after any state of its last block: its own final norm and head, no blocks.

The model's own forward is run with every block passed by, so that whatever it does around its
blocks (norms, scaling, soft caps) is done, and no architecture is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.recording import record_calls

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class Passage:
    """One forward pass of a model, without a cache: its blocks' calls, and what they returned.

    Attributes:
        input_ids: (prompt, token).
        calls: of the blocks, first to last.
        outputs: what each block returned, as it returned it.
    """

    input_ids: Int[Tensor, "prompt token"]
    calls: list[BlockCall]
    outputs: list[Any]


def record_passage(
    model: nn.Module, blocks: Blocks, input_ids: Int[Tensor, "prompt token"]
) -> Passage:
    """Record a pass without a cache, in which no place of a block's call is filled twice.

    Raises:
        CannotDecode: a block writes into what it was given.
    """
    outputs: list[Any] = []
    with ExitStack() as hooks:
        for module in _once(blocks):
            handle = module.register_forward_hook(lambda m, args, output: outputs.append(output))
            hooks.callback(handle.remove)
        calls = record_calls(model, blocks, input_ids, use_cache=False)
    return Passage(input_ids, calls, outputs)


def logits_after(
    model: nn.Module, blocks: Blocks, passage: Passage, hidden: Float[Tensor, "prompt token embed"]
) -> Float[Tensor, "prompt token word"]:
    """The logits of every token where the last block had returned `hidden`.

    Args:
        model: with its head.
        blocks: its blocks.
        passage: of the tokens.
        hidden: a state of all its tokens.

    Raises:
        UserError: the model returns no logits.
    """
    returned = [
        _in_place_of(call.output, output, hidden)
        for call, output in zip(passage.calls, passage.outputs, strict=True)
    ]
    with torch.no_grad(), _passed_by(blocks, returned):
        output = model(input_ids=passage.input_ids, use_cache=False)
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.shape[:2] != passage.input_ids.shape:
        raise UserError(
            f"{type(model).__name__} returns no logits for every token (it has no head to predict "
            "tokens with): damage is measured on what a causal language model predicts"
        )
    return logits


@contextmanager
def _passed_by(blocks: Blocks, returned: list[Any]) -> Iterator[None]:
    """Let every block return what it is told to, for a while."""
    before = {id(module): vars(module).get("forward") for module in blocks.modules}
    waiting = iter(returned)
    try:
        for module in _once(blocks):
            module.forward = lambda *args, **kwargs: next(waiting)
        yield
    finally:
        for module in _once(blocks):
            own = before[id(module)]
            if own is None:
                del module.forward
            else:
                module.forward = own


def _once(blocks: Blocks) -> list[nn.Module]:
    return list({id(module): module for module in blocks.modules}.values())


def _in_place_of(recorded: Tensor, output: Any, hidden: Tensor) -> Any:
    """What a block returned, with another hidden state in it."""
    if isinstance(output, Tensor):
        return hidden
    place = next(n for n, v in enumerate(output) if _is(v, recorded))
    parts = [hidden if n == place else value for n, value in enumerate(output)]
    return type(output)._make(parts) if hasattr(output, "_make") else type(output)(parts)


def _is(value: Any, recorded: Tensor) -> bool:
    return isinstance(value, Tensor) and value.data_ptr() == recorded.data_ptr()
