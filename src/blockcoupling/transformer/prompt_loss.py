"""A model's own loss on prompts that have already passed its blocks: only its head is run.

The model's own forward runs with its body skipped, so that everything it does around its head
(scaling, soft caps) is included and no architecture is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.running import replaced_forward, text_config, without_head

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LOGITS = 2**24
"""How many logits to compute at once: vocabularies are large."""


class NoPredictions(UserError):
    """A model that does not predict the next token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(f"{type(model).__name__} has no head that predicts the next token")


def prompt_losses(
    model: nn.Module,
    blocks: Blocks,
    prompts: Sequence[Int[Tensor, "1 token"]],
    returned: Sequence[Any],
) -> list[float]:
    """Mean of −ln p(next token) over a prompt's tokens from the second on, in nats a token.

    Args:
        model: a causal language model, with the weights of its head.
        blocks: its blocks.
        prompts: token ids.
        returned: what the model returned for each (`recording.record_whole`, with every logit).

    Returns:
        The loss of each prompt; NaN for a prompt of one token, in which nothing is predicted.

    Raises:
        NoPredictions: the model has no logits for every token.
    """
    if without_head(model) is model:
        each = [
            _loss(_logits_in(one, model, ids)[:, :-1], ids[:, 1:])
            for one, ids in zip(returned, prompts, strict=True)
        ]
    else:
        if not isinstance(getattr(returned[0], "last_hidden_state", None), Tensor):
            raise NoPredictions(model)
        states = torch.cat([one.last_hidden_state[:, :-1] for one in returned], dim=1)
        ids, following = (
            torch.cat([part.to(states.device) for part in parts], dim=1)
            for parts in ([p[:, :-1] for p in prompts], [p[:, 1:] for p in prompts])
        )
        at_once = max(1, LOGITS // _vocabulary(model, following))
        losses = [torch.empty(0)]
        for start in range(0, ids.shape[1], at_once):
            some = slice(start, start + at_once)
            output = type(returned[0])(last_hidden_state=states[:, some])
            losses.append(_loss(_head(model, blocks, output, ids[:, some]), following[:, some]))
        each = list(torch.cat(losses).split([len(one[0]) - 1 for one in prompts]))
    return [float(of_prompt.double().mean()) for of_prompt in each]


def _head(model: nn.Module, blocks: Blocks, output: Any, ids: Int[Tensor, "1 token"]) -> Tensor:
    """The model's logits if its body returns `output`."""
    calls: list[None] = []

    def body(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return output

    # The modules around the blocks: the body, or what the model calls instead of it.
    names = blocks.path.split(".")[:-1]
    around = [model.get_submodule(".".join(names[: n + 1])) for n in range(len(names))]
    with torch.no_grad(), replaced_forward(around, body):
        after = model(input_ids=ids)
    if len(calls) != 1:
        raise NoPredictions(model)
    return _logits_in(after, model, ids)


def _loss(
    logits: Float[Tensor, "1 token word"], following: Int[Tensor, "1 token"]
) -> Float[Tensor, " token"]:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return cross_entropy(wide[0], following[0].to(wide.device), reduction="none").cpu()


def _logits_in(
    output: Any, model: nn.Module, ids: Int[Tensor, "1 token"]
) -> Float[Tensor, "1 token word"]:
    """A model's logits, if it returned them for every token and every word."""
    logits = getattr(output, "logits", None)
    if (
        isinstance(logits, Tensor)
        and logits.ndim == 3
        and logits.shape[:2] == ids.shape
        and logits.shape[-1] >= _vocabulary(model, ids)
    ):
        return logits
    raise NoPredictions(model)


def _vocabulary(model: nn.Module, ids: Int[Tensor, "1 token"]) -> int:
    """The size of the vocabulary; if the configuration does not say, at least that of the ids."""
    size = getattr(text_config(model), "vocab_size", None)
    return size if isinstance(size, int) else int(ids.max()) + 1
