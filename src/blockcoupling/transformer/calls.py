"""A block's call as it was recorded: everything it was given, so that it can be called again.

A block is called again at exactly the point at which the model called it, or at another hidden
state with everything else as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import Cache

from blockcoupling.errors import UserError
from blockcoupling.transformer.caches import fresh

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class BlockCall:
    """One recorded call of a block; everything but the hidden state stays as it was.

    Attributes:
        block: the module.
        args: positional arguments, the hidden state's place among them holding None.
        kwargs: keyword arguments, likewise.
        place: where the hidden state stands (a position or a keyword).
        input: the hidden state X^{l-1} the block was given, (1, token, d).
        output: the hidden state X^l it returned, (1, token, d).
    """

    block: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: int | str
    input: Float[Tensor, "prompt token embed"]
    output: Float[Tensor, "prompt token embed"]

    def __call__(
        self, hidden: Float[Tensor, "prompt token embed"], **changed: Any
    ) -> Float[Tensor, "prompt token embed"]:
        """Call the block again at another hidden state, every other argument as recorded.

        Args:
            hidden: the hidden state to put in the recorded one's place.
            changed: keyword arguments to put in place of recorded ones.
        """
        # A block changes the cache it is given: hand it a fresh copy each time.
        args, kwargs = fresh((list(self.args), self.kwargs))
        kwargs |= changed
        if isinstance(self.place, int):
            args[self.place] = hidden
        else:
            kwargs[self.place] = hidden
        return hidden_state(self.block(*args, **kwargs), like=hidden)

    def into(
        self, hidden: Float[Tensor, "prompt token embed"], cache: Cache
    ) -> Float[Tensor, "prompt token embed"]:
        """Call the block with this very cache, which it writes its keys and values into."""
        call = self.with_cache(cache)
        args, kwargs = list(call.args), dict(call.kwargs)
        if isinstance(call.place, int):
            args[call.place] = hidden
        else:
            kwargs[call.place] = hidden
        return hidden_state(call.block(*args, **kwargs), like=hidden)

    def cache(self) -> Cache | None:
        """The key-value cache among the arguments, if there is one."""
        return next((v for v in (*self.args, *self.kwargs.values()) if isinstance(v, Cache)), None)

    def with_cache(self, cache: Any) -> BlockCall:
        """The same call with another object where the cache stands."""
        return replace(
            self,
            args=tuple(cache if isinstance(v, Cache) else v for v in self.args),
            kwargs={k: cache if isinstance(v, Cache) else v for k, v in self.kwargs.items()},
        )


def _is_hidden_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point()


def place_of_hidden_state(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str | None:
    """Where the hidden state stands among a block's arguments: the first (batch, token, d)."""
    for index, value in enumerate(args):
        if _is_hidden_state(value):
            return index
    return next((key for key, value in kwargs.items() if _is_hidden_state(value)), None)


def hidden_state(output: Any, like: Tensor, missing_ok: bool = False) -> Any:
    """The hidden state among what a block returned: the first tensor shaped like its input."""
    candidates = output if isinstance(output, tuple | list) else (output,)
    for value in candidates:
        if _is_hidden_state(value) and value.shape == like.shape:
            return value
    if missing_ok:
        return None
    raise UserError("a block returned no hidden state of its input's shape")
