"""A model's own loss on prompts that have passed its blocks: of the rest, its head alone is run.

The model's own forward is run with its body passed by, so that whatever it does around its head
(scaling, soft caps) is done, and no architecture is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.running import without_head

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LOGITS = 2**24
"""How many numbers to have at once: a vocabulary is wide."""


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
        The loss of each prompt; NaN for a prompt of one token, of which nothing is predicted.

    Raises:
        NoPredictions: the model has no logits for every token.
    """
    lengths = [ids.shape[1] - 1 for ids in prompts]
    body = without_head(model)
    if body is model:
        each = [
            _loss(_checked(model, getattr(one, "logits", None), ids)[:, :-1], ids[:, 1:])
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
        around = _around(model, blocks)
        together = max(1, LOGITS // _vocabulary(model, following))
        losses = [torch.empty(0)]
        for start in range(0, ids.shape[1], together):
            some = slice(start, start + together)
            output = type(returned[0])(last_hidden_state=states[:, some])
            with torch.no_grad(), _returning(around, output) as calls:
                after = model(input_ids=ids[:, some])
            if len(calls) != 1:
                raise NoPredictions(model)
            logits = _checked(model, getattr(after, "logits", None), ids[:, some])
            losses.append(_loss(logits, following[:, some]))
        each = list(torch.cat(losses).split(lengths))
    return [float(of_prompt.double().mean()) for of_prompt in each]


def _loss(
    logits: Float[Tensor, "1 token word"], following: Int[Tensor, "1 token"]
) -> Float[Tensor, " token"]:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return cross_entropy(wide[0], following[0].to(wide.device), reduction="none").cpu()


def _checked(model: nn.Module, logits: Any, ids: Int[Tensor, "1 token"]) -> Tensor:
    """The logits, where they are of every token and of every word."""
    right = (
        isinstance(logits, Tensor)
        and logits.ndim == 3
        and logits.shape[:2] == ids.shape
        and logits.shape[-1] >= _vocabulary(model, ids)
    )
    if not right:
        raise NoPredictions(model)
    return logits


def _vocabulary(model: nn.Module, ids: Int[Tensor, "1 token"]) -> int:
    """How many kinds of tokens there are, as far as the configuration tells."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    told = getattr(text, "vocab_size", None)
    return told if isinstance(told, int) else int(ids.max()) + 1


@contextmanager
def _returning(modules: Sequence[nn.Module], output: Any) -> Iterator[list[None]]:
    """Let modules return what they are told to, for a while; what is yielded counts their calls."""
    calls: list[None] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return output

    with ExitStack() as after:
        for module in modules:
            own = vars(module)
            if "forward" in own:
                after.callback(own.__setitem__, "forward", own["forward"])
            else:
                after.callback(own.pop, "forward")
            own["forward"] = forward
        yield calls


def _around(model: nn.Module, blocks: Blocks) -> list[nn.Module]:
    """What stands around the blocks inside the model: its body, or what it calls in place of it."""
    names = blocks.path.split(".")[:-1]
    return [model.get_submodule(".".join(names[: n + 1])) for n in range(len(names))]
