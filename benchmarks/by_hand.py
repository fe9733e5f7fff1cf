"""The Jacobians of Llama-shaped blocks in closed form, and their triples: the speed to reach.

What somebody would write who knows the architecture and proves nothing: norm, attention of the last
token over a constant context, and gated unit, differentiated on paper. Three large products are
left for a block: one for the unit, one for the attention's output layer, one that joins the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 16


@dataclass(frozen=True)
class Seen:
    """What a block of a forward pass receives: all tokens' states, and their cosines and sines."""

    layer: nn.Module
    states: Tensor
    cosines: Tensor
    sines: Tensor


@torch.no_grad()
def record(model: nn.Module, ids: Tensor) -> list[Seen]:
    """What the blocks of a Llama receive for one prompt, (1, token)."""
    seen: list[Seen] = []

    def keep(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        cosines, sines = kwargs["position_embeddings"]
        seen.append(Seen(layer, states[0], cosines[0], sines[0]))

    inner: Any = model.base_model
    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in inner.layers]
    try:
        inner(ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@torch.no_grad()
def block_jacobian(seen: Seen) -> Tensor:
    """∂f/∂x at the last token of one block, minus the identity: (d, d)."""
    layer: Any = seen.layer
    attention, unit, x = layer.self_attn, layer.mlp, seen.states[-1]
    width = attention.head_dim

    def heads(of: nn.Linear, states: Tensor) -> Tensor:
        return of(states).view(len(states), -1, width).transpose(0, 1)

    normed = layer.input_layernorm(seen.states)
    query = _turned(heads(attention.q_proj, normed[-1:]), seen.cosines[-1:], seen.sines[-1:])[:, 0]
    keys = _turned(heads(attention.k_proj, normed), seen.cosines, seen.sines)
    values = heads(attention.v_proj, normed)
    group = len(query) // len(keys)
    keys, values = (each.repeat_interleave(group, 0) for each in (keys, values))
    weights = (attention.scaling * (keys @ query[..., None])[..., 0]).softmax(-1)
    output = (weights[:, None] @ values)[:, 0]

    # dₒ = Σ_t p_t (v_t − o) ds_t + p_T dv_T, with ds_t = c k_t·dq, and c q·dk for the token itself.
    pulled = attention.scaling * weights[..., None] * (values - output[:, None])
    to_query = pulled.mT @ keys
    to_key = pulled[:, -1, :, None] * query[:, None]
    # Rows of the layers' weights are turned as the vectors that they give.
    by_query, by_key, by_value = (
        each.weight.view(-1, width, len(x))
        for each in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    cosine, sine = seen.cosines[-1, :, None], seen.sines[-1, :, None]
    by_query = _turned(by_query.mT, cosine.mT, sine.mT).mT
    by_key = _turned(by_key.mT, cosine.mT, sine.mT).mT.repeat_interleave(group, 0)
    inner = to_query @ by_query + to_key @ by_key
    inner += weights[:, -1, None, None] * by_value.repeat_interleave(group, 0)
    first = _through_norm(
        attention.o_proj.weight @ inner.reshape(-1, len(x)), layer.input_layernorm, x
    )

    middle = x + attention.o_proj(output.reshape(-1))
    z = layer.post_attention_layernorm(middle)
    gate, up = unit.gate_proj(z), unit.up_proj(z)
    share = torch.sigmoid(gate)
    inside = unit.gate_proj.weight * (share * (1 + gate * (1 - share)) * up)[:, None]
    inside.addcmul_(unit.up_proj.weight, (gate * share)[:, None])
    second = _through_norm(unit.down_proj.weight @ inside, layer.post_attention_layernorm, middle)
    return torch.addmm(first + second, second, first)


@torch.no_grad()
def top_triples(jacobian: Tensor, k: int, tolerance: float = 1e-4) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V by block Lanczos on J Jᵀ, without any check but the residual.

    Args:
        jacobian: (d, d).
        k: how many.
        tolerance: of ‖J v_k − s_k u_k‖ / s_1.
    """
    d = len(jacobian)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(d, BLOCK, generator=generator, dtype=torch.float64).to(jacobian)
    basis = new = torch.linalg.qr(jacobian @ start)[0]
    pulled = jacobian.mT @ new
    while True:
        rest = jacobian @ pulled[:, -BLOCK:]
        for _ in range(2):
            rest = rest - basis @ (basis.mT @ rest)
        new = torch.linalg.qr(rest)[0]
        basis = torch.cat([basis, new], dim=1)
        pulled = torch.cat([pulled, jacobian.mT @ new], dim=1)
        size = basis.shape[1]
        complete = size > d - BLOCK
        if not complete and (size < 4 * k or size % (2 * BLOCK)):
            continue
        squares, vectors = torch.linalg.eigh(pulled.mT @ pulled)
        s, vectors = squares.flip(0)[:k].sqrt(), vectors.flip(1)[:, :k]
        u, v = basis @ vectors, pulled @ vectors / s
        residual = (jacobian @ v - u * s).norm(dim=0).max() / s[0]
        if complete or float(residual) <= tolerance:
            return u, s, v


@dataclass(frozen=True)
class ByHand:
    """S, (block, k), and A, (block, block_other, k, k_other), of one prompt; seconds it took."""

    S: Tensor
    A: Tensor
    seconds: float


@torch.no_grad()
def measure(
    model: nn.Module, ids: Tensor, k: int, clock: Callable[[], float] = time.process_time
) -> ByHand:
    """One prompt, from its forward pass to all A_ij."""
    start = clock()
    jacobians = [block_jacobian(seen) for seen in record(model, ids)]
    triples = [top_triples(each, k) for each in jacobians]
    left = torch.stack([u for u, _, _ in triples])
    right = torch.cat([v for _, _, v in triples], dim=1)
    pushed = torch.stack([(each @ right).unflatten(1, (-1, k)) for each in jacobians])
    products = torch.einsum("jdk,idjl->ijkl", left, pushed)
    return ByHand(torch.stack([s for _, s, _ in triples]), products, clock() - start)


def _turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions: x of (…, width), turned in its halves."""
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines


def _through_norm(rows: Tensor, norm: Any, x: Tensor) -> Tensor:
    """R ∂(w x / rms(x))/∂x = R diag(w) (I − n nᵀ / d) / rms(x), n = x / rms(x)."""
    root = torch.rsqrt(x.square().mean() + norm.variance_epsilon)
    n = x * root
    rows = rows * (norm.weight * root)
    return rows.addr_(rows @ n, n, alpha=-1 / len(x))


def ratios(model: nn.Module, prompts: list[Tensor], k: int, repeats: int = 3) -> dict[str, float]:
    """Processor seconds by hand and of this package over them, in turn; the least of all repeats.

    Args:
        model: Llama-shaped.
        prompts: (1, token) each; the first is measured alone, too.
        k: triples.
        repeats: how often.
    """
    import blockcoupling as bc

    def ours(some: list[Tensor]) -> float:
        given = {str(i): ids for i, ids in enumerate(some)}
        start = time.process_time()
        bc.measure(model, given.__getitem__, list(given), k=k)
        return (time.process_time() - start) / len(some)

    hand, alone, together = ([] for _ in range(3))
    measure(model, prompts[0], k)
    ours(prompts[:1])  # loads libraries
    for _ in range(repeats):
        hand.append(measure(model, prompts[0], k).seconds)
        alone.append(ours(prompts[:1]))
        together.append(ours(prompts))
    least = min(hand)
    return {"by hand": least, "alone": min(alone) / least, "batch": min(together) / least}
