"""Recorded calls of a block, with all arguments, so that the block can be called again.

A block is called again at exactly the recorded hidden state, or at another one with all other
arguments unchanged.
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
    """One recorded call of a block.

    Attributes:
        block: the module.
        args: positional arguments, with None for the hidden state.
        kwargs: keyword arguments, likewise.
        place: position or keyword of the hidden state.
        input: the hidden state X^{l-1} that the block received, (1, token, d).
        output: the hidden state X^l that it returned, (1, token, d).
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
        """Call the block at another hidden state, with every other argument as recorded.

        Args:
            hidden: the hidden state.
            changed: keyword arguments that replace recorded ones.
        """
        # A block changes its cache: each call gets a fresh copy.
        args, kwargs = fresh((self.args, self.kwargs))
        return self._call(hidden, args, kwargs | changed)

    def _call(self, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if isinstance(self.place, int):
            args = (*args[: self.place], hidden, *args[self.place + 1 :])
        else:
            kwargs = kwargs | {self.place: hidden}
        return hidden_state(self.block(*args, **kwargs), like=hidden)

    def into(
        self, hidden: Float[Tensor, "prompt token embed"], cache: Cache
    ) -> Float[Tensor, "prompt token embed"]:
        """Call the block with this cache itself, which receives its keys and values."""
        call = self.with_cache(cache)
        return call._call(hidden, call.args, call.kwargs)

    def cache(self) -> Cache | None:
        """The key-value cache among the arguments, if any."""
        return next((v for v in (*self.args, *self.kwargs.values()) if isinstance(v, Cache)), None)

    def with_cache(self, cache: Any) -> BlockCall:
        """The same call with another object instead of its cache."""
        return replace(
            self,
            args=tuple(cache if isinstance(v, Cache) else v for v in self.args),
            kwargs={k: cache if isinstance(v, Cache) else v for k, v in self.kwargs.items()},
        )


def _is_hidden_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point()


def place_of_hidden_state(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str | None:
    """Position or keyword of the hidden state: the first argument of shape (batch, token, d)."""
    for index, value in enumerate(args):
        if _is_hidden_state(value):
            return index
    return next((key for key, value in kwargs.items() if _is_hidden_state(value)), None)


def hidden_state(output: Any, like: Tensor, missing_ok: bool = False) -> Any:
    """The hidden state in a block's output: the first tensor of its input's shape."""
    candidates = output if isinstance(output, tuple | list) else (output,)
    for value in candidates:
        if _is_hidden_state(value) and value.shape == like.shape:
            return value
    if missing_ok:
        return None
    raise UserError("a block returned no hidden state of its input's shape")
