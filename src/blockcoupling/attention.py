"""Attention of one token over a context that is held constant.

Differentiating a block at its last token, the context's keys and values are constants. A model's
own attention joins them with the token's own key and value first, and autograd then computes
gradients for the whole of the joint arrays, which nobody needs and which grow with the prompt.
Here the two parts stay apart. The function is registered with transformers'
`AttentionInterface`, so it serves every model that goes through that interface; whether it does
what the model's own attention does is checked on every block it is used for (see
`linearize.same_token`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Cache

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


class Context:
    """Stands where a block expects its cache, and keeps the context's keys and values.

    `update` gives the block back only the token's own key and value; the attention function below
    finds the context here. Prompts of different lengths are padded on the left, the padding hidden
    by a bias of minus infinity.

    Args:
        caches: one cache per prompt, as it was before the token was decoded.
    """

    def __init__(self, caches: list[Cache]) -> None:
        self._caches = caches
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.bias: Tensor | None = None
        self.updates = 0
        self.uses = 0

    def __getattr__(self, name: str) -> Any:
        # Anything else a model asks of its cache (its length, say) is the first prompt's answer.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._caches[0], name)

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep the layer's context for the attention that follows; return what was given."""
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


class _Current(threading.local):
    context: Context | None = None


_current = _Current()  # blocks may be recorded in several threads


@contextmanager
def attend_to(context: Context, block: nn.Module) -> Iterator[None]:
    """Let a block's attention go through `one_token_attention` with this context."""
    configs: dict[int, Any] = {
        id(module.config): module.config
        for module in block.modules()
        if hasattr(getattr(module, "config", None), "_attn_implementation")
    }
    before = {key: config._attn_implementation for key, config in configs.items()}
    _current.context = context
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        _current.context = None


def one_token_attention(
    module: nn.Module,
    query: Float[Tensor, "row head 1 key_dim"],
    key: Float[Tensor, "row kv_head 1 key_dim"],
    value: Float[Tensor, "row kv_head 1 value_dim"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "row 1 head value_dim"], None]:
    """Softmax attention of one token over its context and itself.

    A row is a prompt's token, or one of several copies of it, which follow each other.

    With a the weight that the token gives itself, the output is (1 − a) · (attention over the
    context alone) + a · v, where a = sigmoid(q·k − logsumexp of the context's scores): the context
    and the token's own part are never joined into one array.

    Raises:
        UnsupportedAttention: for arguments that would change the result in ways not covered here.
    """
    context = _current.context
    assert context is not None
    context.uses += 1
    if query.shape[2] != 1 or key.shape[2] != 1 or context.keys is None:
        raise UnsupportedAttention("not one token at a time with a cache")
    ignored = {"position_ids", "cache_position", "sliding_window", "is_causal", "use_cache"}
    unknown = [k for k, v in kwargs.items() if k not in ignored and torch.is_tensor(v)]
    if unknown:
        raise UnsupportedAttention(f"attention arguments {unknown}")
    assert context.values is not None
    assert context.bias is not None
    heads = query.shape[1]
    prompts, kv_heads, length = context.keys.shape[:3]
    copies, group = query.shape[0] // prompts, heads // kv_heads

    def by_context(x: Tensor, each: int) -> Tensor:
        """(prompt · copy, head, 1, n) → (prompt · kv_head, copy, each, n)."""
        x = x.reshape(prompts, copies, kv_heads, each, -1).transpose(1, 2)
        return x.reshape(prompts * kv_heads, copies, each, -1)

    def times(x: Tensor, constant: Tensor) -> Tensor:
        # Copies of a prompt meet the same context, as rows of one product.
        rows = x.reshape(prompts * kv_heads, copies * group, -1)
        return _ContextProduct.apply(rows, constant).view(*x.shape[:-1], -1)

    def cap(scores: Tensor) -> Tensor:
        return scores if softcap is None else softcap * torch.tanh(scores / softcap)

    def as_output(x: Tensor) -> Tensor:
        x = x.reshape(prompts, kv_heads, copies, group, -1).transpose(1, 2)
        return x.reshape(prompts * copies, 1, heads, -1)

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q = by_context(query * scale, group)
    k, v = by_context(key, 1), by_context(value, 1)
    own = cap((q * k).sum(-1, keepdim=True))
    mask = None if attention_mask is None else attention_mask[..., -(length + 1) :]
    if mask is not None:
        if mask.shape[-1] != length + 1:
            raise UnsupportedAttention("a mask of another length than the context")
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
        mask = mask.expand(prompts, heads, 1, length + 1).reshape(-1, 1, group, length + 1)
        own = own + mask[..., -1:]
    if length == 0:
        return as_output(v.expand(-1, -1, group, -1)), None
    flat_keys = context.keys.reshape(prompts * kv_heads, length, -1)
    flat_values = context.values.reshape(prompts * kv_heads, length, -1)
    scores = cap(times(q, flat_keys.transpose(1, 2)))
    bias = context.bias.repeat_interleave(kv_heads, 0)[:, None, None]
    if mask is not None:
        bias = bias + mask[..., :-1]
    # -inf rows (a prompt of one token beside longer ones) have no softmax: a large finite number.
    scores = scores + bias.clamp_min(torch.finfo(scores.dtype).min / 4)
    itself = torch.sigmoid(own - scores.logsumexp(-1, keepdim=True))
    over_context = times(scores.softmax(-1), flat_values)
    return as_output(over_context + itself * (v - over_context)), None


AttentionInterface.register(NAME, one_token_attention)
