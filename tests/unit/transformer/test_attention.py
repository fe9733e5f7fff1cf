"""Attention with the context held apart, against the textbook's formula over context and token."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from blockcoupling.transformer.attention import NAME, Context, UnsupportedAttention, attend_to
from blockcoupling.transformer.attention import one_token_attention as attention

WIDTH = 6
ROUNDING = 1e-12  # sums of some ten terms in float64

HEADS = [(4, 4), (4, 2), (4, 1)]
LENGTHS = [(5,), (5, 5), (7, 3, 1), (4, 0, 6), (0,), (0, 0)]


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def caches(lengths: Sequence[int], kv_heads: int) -> list[DynamicCache]:
    """One cache per prompt with random keys and values; an untouched one for length 0."""
    made = []
    for prompt, length in enumerate(lengths):
        cache = DynamicCache()
        if length:
            keys, values = random(2, 1, kv_heads, length, WIDTH, seed=100 + prompt)
            cache.update(keys, values, 0)
        made.append(cache)
    return made


def token(prompts: int, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q = random(prompts, heads, 1, WIDTH, seed=0).requires_grad_()
    k = random(prompts, kv_heads, 1, WIDTH, seed=1).requires_grad_()
    v = random(prompts, kv_heads, 1, WIDTH, seed=2).requires_grad_()
    return q, k, v


def held(lengths: Sequence[int], k: Tensor, v: Tensor) -> Context:
    """A context as a block's cache update leaves it; prompts of length 0 need a cache too."""
    context = Context(caches(lengths, k.shape[1]))
    for cache in context._caches:
        if not cache.layers:  # a layer appears with its first update: give it an empty one
            cache.layers.append(SimpleNamespace(keys=None, values=None))
    kept = context.update(k, v, 0)
    assert kept[0] is k
    assert kept[1] is v
    return context


def textbook(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Sequence[int],
    *,
    scaling: float = WIDTH**-0.5,
    softcap: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """softmax(cap(q Kᵀ) + mask) V, prompt by prompt, head by head, over context and token."""
    outputs = []
    for p, cache in enumerate(caches(lengths, k.shape[1])):
        keys, values = k[p], v[p]
        if lengths[p]:
            keys = torch.cat([cache.layers[0].keys[0], keys], dim=1)
            values = torch.cat([cache.layers[0].values[0], values], dim=1)
        group = q.shape[1] // k.shape[1]
        heads = []
        for h in range(q.shape[1]):
            scores = scaling * keys[h // group] @ q[p, h, 0]
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if mask is not None:
                scores = scores + mask[p, 0, 0]
            heads.append(torch.softmax(scores, dim=0) @ values[h // group])
        outputs.append(torch.stack(heads))
    return torch.stack(outputs)[:, None]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("options", [{}, {"scaling": 0.8}, {"softcap": 0.7}], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_output_and_gradients_are_the_textbooks(
    heads: int, kv_heads: int, lengths: tuple[int, ...], options: dict
) -> None:
    q, k, v = token(len(lengths), heads, kv_heads)
    context = held(lengths, k, v)
    with attend_to(context, nn.Module()):
        output, weights = attention(nn.Module(), q, k, v, None, **options)
    wanted = textbook(q, k, v, lengths, **options)
    assert weights is None
    assert context.uses == context.updates == 1
    close(output, wanted)
    cotangent = random(*wanted.shape, seed=3)
    mine = torch.autograd.grad(output, (q, k, v), cotangent, allow_unused=True)
    theirs = torch.autograd.grad(wanted, (q, k, v), cotangent)
    for name, found, exact in zip("qkv", mine, theirs, strict=True):
        # Alone, a token attends to itself whatever its query and key are.
        close(torch.zeros_like(exact) if found is None else found, exact)
        assert found is not None or (name != "v" and not any(lengths))


@pytest.mark.parametrize("kind", ["float", "bool", "longer"])
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_mask_is_the_textbooks(heads: int, kv_heads: int, kind: str) -> None:
    lengths = (5, 5)
    q, k, v = token(2, heads, kv_heads)
    visible = torch.tensor([[1, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 1]], dtype=torch.bool)
    hidden = torch.zeros(2, 6, dtype=torch.float64).masked_fill(
        ~visible, torch.finfo(torch.float64).min
    )[:, None, None]
    given = {
        "float": hidden,
        "bool": visible[:, None, None],
        # Columns before the context's belong to tokens that a sliding window has let go.
        "longer": torch.cat([torch.zeros_like(hidden), hidden], dim=-1),
    }[kind]
    with attend_to(held(lengths, k, v), nn.Module()):
        output, _ = attention(nn.Module(), q, k, v, given)
    close(output, textbook(q, k, v, lengths, mask=hidden))


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_cotangents_together_are_cotangents_one_by_one(
    heads: int, kv_heads: int, lengths: tuple[int, ...]
) -> None:
    """The batching rule, for backward passes and for the derivative of a backward pass."""
    x = random(len(lengths), WIDTH, seed=4).requires_grad_()
    into_q = random(WIDTH, heads * WIDTH, seed=5)
    into_k, into_v = random(2, WIDTH, kv_heads * WIDTH, seed=6)
    q = (x @ into_q).view(len(lengths), heads, 1, WIDTH)
    k = (x @ into_k).view(len(lengths), kv_heads, 1, WIDTH)
    v = (x @ into_v).view(len(lengths), kv_heads, 1, WIDTH)
    with attend_to(held(lengths, k, v), nn.Module()):
        output, _ = attention(nn.Module(), q, k, v, None)

    def back(cotangent: Tensor) -> Tensor:
        return torch.autograd.grad(output, x, cotangent, retain_graph=True)[0]

    cotangents = random(5, *output.shape, seed=7)
    close(torch.vmap(back)(cotangents), torch.stack([back(c) for c in cotangents]))

    u = torch.zeros_like(output, requires_grad=True)
    (pulled,) = torch.autograd.grad(output, x, u, create_graph=True)

    def forth(tangent: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, u, tangent, retain_graph=True)[0]

    tangents = random(5, *x.shape, seed=8)
    pushed = torch.vmap(forth)(tangents)
    close(pushed, torch.stack([forth(t) for t in tangents]))
    # ⟨J t, c⟩ = ⟨t, Jᵀ c⟩: both directions belong to one matrix.
    left = (pushed[:, None] * cotangents).flatten(2).sum(-1)
    right = (tangents[:, None] * torch.vmap(back)(cotangents)).flatten(2).sum(-1)
    close(left, right)


@pytest.mark.parametrize("length", [3, 50])
def test_products_do_not_grow_with_the_context(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = token(2, 4, 2)
    with attend_to(held((length, length), k, v), nn.Module()):
        output, _ = attention(nn.Module(), q, k, v, None)
    constants = []
    bmm = torch.bmm

    def noting(x: Tensor, constant: Tensor) -> Tensor:
        constants.append(constant.numel())
        return bmm(x, constant)

    monkeypatch.setattr(torch, "bmm", noting)
    cotangents = random(9, *output.shape, seed=3)
    torch.vmap(lambda c: torch.autograd.grad(output, q, c, retain_graph=True)[0])(cotangents)
    # prompts × heads × width × width, once for all cotangents
    assert constants == [2 * 4 * WIDTH * WIDTH]


def test_padding_has_no_weight() -> None:
    """A short prompt in a batch with a long one gets the numbers of it alone, to rounding."""
    q, k, v = token(2, 4, 2)
    with attend_to(held((3, 40), k, v), nn.Module()):
        batch, _ = attention(nn.Module(), q, k, v, None)
    with attend_to(held((3,), k[:1], v[:1]), nn.Module()):
        alone, _ = attention(nn.Module(), q[:1], k[:1], v[:1], None)
    close(batch[:1], alone)


def test_arguments_that_are_not_covered_are_refused() -> None:
    q, k, v = token(1, 4, 2)

    def call(query: Tensor = q, mask: Tensor | None = None, **kwargs: object) -> None:
        with attend_to(held((3,), k, v), nn.Module()):
            attention(nn.Module(), query, k, v, mask, **kwargs)

    call(position_ids=torch.arange(4))
    with pytest.raises(UnsupportedAttention, match="one token at a time"):
        call(query=q.expand(-1, -1, 2, -1))
    with pytest.raises(UnsupportedAttention, match=r"\['s_aux'\]"):
        call(s_aux=torch.ones(4))  # attention sinks change the softmax
    with pytest.raises(UnsupportedAttention, match="mask of another length"):
        call(mask=torch.zeros(1, 1, 1, 2, dtype=torch.float64))
    with pytest.raises(UnsupportedAttention, match="another number of heads"):
        Context(caches((3,), 4)).update(k, v, 0)


def test_without_a_cache_update_there_is_no_context() -> None:
    q, k, v = token(1, 4, 2)
    with (
        attend_to(Context(caches((3,), 2)), nn.Module()),
        pytest.raises(UnsupportedAttention, match="with a cache"),
    ):
        attention(nn.Module(), q, k, v, None)


def test_a_context_answers_for_its_caches() -> None:
    assert Context(caches((3, 5), 2)).get_seq_length() == 3
    with pytest.raises(AttributeError):
        Context(caches((3,), 2)).no_such_thing  # noqa: B018


def test_attention_implementation_is_put_back() -> None:
    block, inner = nn.Module(), nn.Module()
    block.inner = inner
    block.config = SimpleNamespace(_attn_implementation="eager")
    inner.config = SimpleNamespace(_attn_implementation="sdpa")
    context = Context(caches((3,), 2))
    with pytest.raises(RuntimeError, match="on the way"), attend_to(context, block):
        assert block.config._attn_implementation == inner.config._attn_implementation == NAME
        raise RuntimeError("on the way")
    assert block.config._attn_implementation == "eager"
    assert inner.config._attn_implementation == "sdpa"
