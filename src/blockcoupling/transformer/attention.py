"""Attention of one token over a context that is held constant.

When a block is differentiated at one token, the keys and values of its context are constants. A
model's own attention first joins them with the token's own key and value, and autograd then
computes gradients for the whole joint arrays, which are not needed and grow with the prompt. Here
the two parts stay apart, and attention is linearized once, before any product is computed. The
context is a cache of earlier tokens or, in a bidirectional model, all other tokens
(`bidirectional`). The function is registered with transformers' `AttentionInterface`, so it serves
every model that uses that interface. Every block for which it is used is compared with the model's
own attention (see `block_operators.same_token`).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache

from blockcoupling.transformer.caches import Shared, fresh

if TYPE_CHECKING:
    from jaxtyping import Float


NAME = "blockcoupling_one_token"


class UnsupportedAttention(Exception):
    """A block's attention asks for something that this implementation does not do."""


class _ContextProduct(torch.autograd.Function):
    """x C for a constant C, with a batching rule that never repeats C.

    x: (batch, row, a), C: (batch, a, b). Under `vmap` over cotangents the mapped dimension joins
    the rows; torch's own rule would copy C once for every cotangent.
    """

    @staticmethod
    def forward(x: Tensor, constant: Tensor) -> Tensor:
        return torch.bmm(x, constant.to(x.dtype))  # x of bfloat16, where products are so

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.constant = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _ContextProduct.apply(grad, ctx.constant.transpose(1, 2)), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], x: Tensor, constant: Tensor
    ) -> tuple[Tensor, int]:
        dim, constant_dim = in_dims
        assert dim is not None
        assert constant_dim is None
        x = x.movedim(dim, 1)
        batch, mapped, rows, a = x.shape
        product = _ContextProduct.apply(x.reshape(batch, mapped * rows, a), constant)
        return product.view(batch, mapped, rows, -1), 1


# `apply` asks for the signature of `forward` each time; found here, it need not be parsed again.
_ContextProduct.forward.__signature__ = inspect.signature(  # type: ignore[attr-defined]
    _ContextProduct.forward
)


@dataclass(frozen=True)
class Asked:
    """What a block's attention is called with.

    Attributes:
        query, key, value: of the tokens that the block is called on.
        mask: as the model makes it: boolean, or added to the scores; None: nothing is hidden.
        scale: of the scores.
        softcap: if any, scores are softcap · tanh(score / softcap).
    """

    query: Float[Tensor, "row head token key_dim"]
    key: Float[Tensor, "row kv_head token key_dim"]
    value: Float[Tensor, "row kv_head token value_dim"]
    mask: Tensor | None
    scale: float
    softcap: float | None

    def demand_one_token(self, kv_heads: int) -> None:
        """Raise `UnsupportedAttention` unless there is one token, with as many heads as given."""
        if (self.query.shape[2], *self.key.shape[1:3]) != (1, kv_heads, 1):
            raise UnsupportedAttention("not one token at a time")


class Surroundings(Shared):
    """What a block's token attends to; the attention function finds it by `attend_to`.

    Attributes:
        uses: how often a block has attended to it.
    """

    uses: int = 0

    def renew(self) -> None:
        """Called before each call of a block."""

    def attend(self, asked: Asked) -> Float[Tensor, "row token head value_dim"]:
        """The output of the attention."""
        raise NotImplementedError

    @property
    def used_once(self) -> bool:
        """Whether a block has attended exactly once, and to this."""
        return self.uses == 1


class Context(Surroundings):
    """Replaces a block's cache and keeps the context's keys and values.

    `update` returns only the token's own key and value to the block; the attention function finds
    the context here. Prompts of different lengths are padded on the left, and a bias of minus
    infinity hides the padding.

    Args:
        caches: one cache per prompt, as it was before the token was decoded.
    """

    def __init__(self, caches: list[Cache]) -> None:
        self._caches = caches
        self._first: Cache | None = None
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.bias: Tensor | None = None
        self.updates = 0
        self.uses = 0

    def __getattr__(self, name: str) -> Any:
        # Other attributes of a cache (its length, for example) are those of the first prompt's.
        if name.startswith("__"):
            raise AttributeError(name)
        if self._first is None:
            self._first = fresh(self._caches[0])
        return getattr(self._first, name)

    def renew(self) -> None:
        """Discard what a call has changed: every call of a block starts from the given caches."""
        self._first = None

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep the layer's context for the attention that follows; return the arguments."""
        self.updates += 1
        held = [cache.layers[layer] for cache in self._caches]
        lengths = [
            0 if getattr(h, "keys", None) is None else h.keys.shape[-2] * (h.keys.numel() > 0)
            for h in held
        ]
        longest = max(lengths)
        prompts, heads = len(held), keys.shape[1]
        if longest and any(held[i].keys.shape[1] != heads for i, n in enumerate(lengths) if n):
            raise UnsupportedAttention("the cache holds another number of heads")
        self.keys = keys.new_zeros(prompts, heads, longest, keys.shape[-1])
        self.values = values.new_zeros(prompts, heads, longest, values.shape[-1])
        self.bias = keys.new_zeros(prompts, longest)
        for p, length in enumerate(lengths):
            if length:
                self.keys[p, :, longest - length :] = held[p].keys[0]
                self.values[p, :, longest - length :] = held[p].values[0]
            self.bias[p, : longest - length] = -torch.inf
        return keys, values

    @property
    def used_once(self) -> bool:
        """Whether a block has asked for the context exactly once, and attended to it."""
        return self.updates == self.uses == 1

    def attend(self, asked: Asked) -> Float[Tensor, "row 1 head value_dim"]:
        """Softmax attention over the context and the token itself, linearized at the token."""
        if self.keys is None:
            raise UnsupportedAttention("not with a cache")
        assert self.values is not None
        assert self.bias is not None
        prompts, kv_heads, length = self.keys.shape[:3]
        asked.demand_one_token(kv_heads)
        nothing = self.bias.new_zeros(prompts, asked.query.shape[1], 1, length + 1)
        bias = hidden(asked.mask, nothing) + functional.pad(self.bias, (0, 1))[:, None, None]
        return linearized(asked, self.keys, self.values, bias)


class _Current(threading.local):
    context: Surroundings | None = None
    constant_weights: bool = False


_current = _Current()  # blocks may be recorded in several threads


@contextmanager
def attend_to(context: Surroundings, block: nn.Module) -> Iterator[None]:
    """Let a block's attention go through `one_token_attention` with this context."""
    configs: dict[int, Any] = {
        id(module.config): module.config
        for module in block.modules()
        if hasattr(getattr(module, "config", None), "_attn_implementation")
    }
    before = {key: config._attn_implementation for key, config in configs.items()}
    _register()
    context.renew()
    _current.context = context
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        _current.context = None


@contextmanager
def constant_weights() -> Iterator[None]:
    """A context in which attention weights have no gradient (see `detached`)."""
    before, _current.constant_weights = _current.constant_weights, True
    try:
        yield
    finally:
        _current.constant_weights = before


def one_token_attention(
    module: nn.Module,
    query: Float[Tensor, "row head token key_dim"],
    key: Float[Tensor, "row kv_head token key_dim"],
    value: Float[Tensor, "row kv_head token value_dim"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "row token head value_dim"], None]:
    """The attention function of blocks within `attend_to`; the surroundings compute its output.

    Raises:
        UnsupportedAttention: for arguments that would change the result in unsupported ways.
    """
    context = _current.context
    assert context is not None
    context.uses += 1
    ignored = {"position_ids", "cache_position", "sliding_window", "is_causal", "use_cache"}
    unknown = [k for k, v in kwargs.items() if k not in ignored and torch.is_tensor(v)]
    if unknown:
        raise UnsupportedAttention(f"attention arguments {unknown}")
    if _current.constant_weights:
        query, key = query.detach(), key.detach()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return context.attend(Asked(query, key, value, attention_mask, scale, softcap)), None


def linearized(
    asked: Asked,
    context_keys: Float[Tensor, "prompt kv_head context key_dim"],
    context_values: Float[Tensor, "prompt kv_head context value_dim"],
    bias: Float[Tensor, "prompt head_or_1 1 context_and_token"],
) -> Float[Tensor, "row 1 head value_dim"]:
    """Softmax attention of one token over its context and itself, linearized at the token.

    A row is a prompt's token, or one of several copies of it, which follow each other.

    The output is o = Σ_t p_t v_t with p the softmax of the scores, over the context and the token
    itself. It depends on the token's own query, key and value alone, by

        do = Σ_t p_t (v_t − o) ds_t + p dv,   ds_t = scale k_t · dq (+ scale q · dk for itself),

    so a matrix of key width × value width a head describes the whole context. It is computed once,
    and the result is o and this linear map: products with the block's Jacobian cost the same
    however long the context is.

    Args:
        asked: of the one token.
        context_keys: of the context, constant.
        context_values: of the context, constant.
        bias: added to the scores; the last column is the token's own.
    """
    prompts, kv_heads = context_keys.shape[:2]
    heads = asked.query.shape[1]
    group = heads // kv_heads

    def moving(x: Tensor) -> Tensor:
        """(prompt · copy, head, 1, n) → (prompt, copy, kv_head, head of its group, n)."""
        return x.reshape(prompts, -1, kv_heads, x.shape[1] // kv_heads, x.shape[-1])

    q, k, v = moving(asked.query), moving(asked.key), moving(asked.value)
    with torch.no_grad():
        # All copies of a token are at the same point: (prompt, kv_head, head of its group, n).
        q0, k0, v0 = (x[:, 0].to(context_keys.dtype) for x in (q, k, v))
        keys = torch.cat([context_keys, k0], dim=2)
        values = torch.cat([context_values, v0], dim=2)
        scores = asked.scale * (q0 @ keys.mT)
        slope = torch.ones_like(scores)
        if asked.softcap is not None:
            capped = torch.tanh(scores / asked.softcap)
            scores, slope = asked.softcap * capped, 1 - capped.square()
        by_head = bias.expand(-1, heads, -1, -1).reshape(prompts, kv_heads, group, bias.shape[-1])
        weights = (scores + by_head).softmax(-1)
        output = weights @ values
        off = values[:, :, None] - output[..., None, :]  # v_t − o
        pull = asked.scale * slope * weights
        by_query = keys.mT[:, :, None] @ (pull[..., None] * off)
        by_key = pull[..., -1:] * q0
        own, itself = weights[..., -1:], off[..., -1, :]
    by_query = by_query.flatten(0, 2)
    dq = (q - q.detach()).flatten(2, 3).transpose(1, 2).flatten(0, 1)  # (prompt · head, copy, n)
    turned = _ContextProduct.apply(dq, by_query).view(prompts, heads, -1, v.shape[-1])
    turned = turned.transpose(1, 2).unflatten(2, (kv_heads, group))
    drawn = ((k - k.detach()) * by_key[:, None]).sum(-1, keepdim=True) * itself[:, None]
    moved = output[:, None] + turned + drawn + own[:, None] * (v - v.detach())
    return moved.reshape(asked.query.shape[0], 1, heads, -1)


def hidden(mask: Tensor | None, nothing: Tensor) -> Tensor:
    """What a mask adds to the scores: `nothing` (prompt, head, query, key) without a mask."""
    if mask is None:
        return nothing
    # Columns before the context's belong to tokens that have left a sliding window.
    mask = mask[..., -nothing.shape[-1] :]
    if mask.shape[-1] != nothing.shape[-1]:
        raise UnsupportedAttention("a mask of another length than the context")
    if mask.dtype == torch.bool:
        return nothing.masked_fill(~mask, -torch.inf)
    return nothing + mask


@cache
def _register() -> None:
    """Enter the attention function under its name."""
    from transformers import AttentionInterface  # imports all that models need: seconds

    AttentionInterface.register(NAME, one_token_attention)
