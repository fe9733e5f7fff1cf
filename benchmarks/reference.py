"""The released algorithm (github.com/sugolov/coupling), as it works, in our own words.

One forward pass of the whole prompt with its graph; for every block, vector-Jacobian products with
respect to all tokens, in chunks, the graph retained; a full SVD of every Jacobian; all pairs of
blocks. It is the baseline of every ratio in the table.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

CHUNK = 64


def released(
    model: nn.Module, blocks: list[nn.Module], ids: Tensor, k: int, measured: list[int]
) -> tuple[Tensor, float, float]:
    """Couple the blocks `measured`, and say how long the forward pass and the rest took.

    Returns:
        The mis-coupling matrix of those blocks (its own variant), the seconds of the forward pass,
        and the seconds of everything after it.
    """
    states: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        states.append((hidden, output[0] if isinstance(output, tuple) else output))

    handles = [block.register_forward_hook(keep, with_kwargs=True) for block in blocks]
    start = time.perf_counter()
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_(True)
    model.base_model(inputs_embeds=embedded, use_cache=False)
    forward = time.perf_counter() - start
    for handle in handles:
        handle.remove()

    start = time.perf_counter()
    jacobians = torch.stack([_all_tokens(*states[index])[:, -1] for index in measured])
    d = jacobians.shape[-1]
    jacobians -= torch.eye(d, device=jacobians.device, dtype=jacobians.dtype)
    u, s, vh = torch.linalg.svd(jacobians)
    u, s, v = u[..., :k], s[:, :k], vh.mT[..., :k]
    coupled = torch.empty(len(measured), len(measured))
    for i in range(len(measured)):
        for j in range(len(measured)):
            a = u[j].mT @ jacobians[i] @ v[j]
            coupled[i, j] = (a.abs() - s[i].diag()).norm() / s[i].norm()
    return coupled, forward, time.perf_counter() - start


def _all_tokens(before: Tensor, after: Tensor) -> Tensor:
    """∂ (last token's output) / ∂ (every token's input), (d, token, d).

    The d backward passes go through the block at all tokens, whichever token is wanted afterwards.
    """
    _, tokens, d = after.shape
    rows = []
    for start in range(0, d, CHUNK):
        count = min(CHUNK, d - start)
        cotangents = torch.zeros(count, 1, tokens, d, device=after.device, dtype=after.dtype)
        index = torch.arange(count, device=after.device)
        cotangents[index, 0, -1, start + index] = 1
        pulled = torch.autograd.grad(
            after, before, cotangents, retain_graph=True, is_grads_batched=True
        )[0]
        rows.append(pulled[:, 0])
    return torch.cat(rows)
