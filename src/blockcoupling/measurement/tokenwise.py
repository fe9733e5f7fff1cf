"""Token-wise coupling: Jacobians of different tokens compared with each other, block by block.

For a pair of blocks (l, l') and tokens of one prompt (arXiv 2407.07810, section 3.1):

- `self`: J^l[t, t] against J^l'[t', t'], for all t and t';
- `input_fixed`: J^l[t1, t2] against J^l'[t1, t2'], for all t2, t2' ≥ t1;
- `output_fixed`: J^l[t1, t2] against J^l'[t1', t2], for all t1, t1' ≤ t2.

A comparison of J_i with J_j keeps A = U_jᵀ J_i V_j with the full J_i, as between blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from blockcoupling.config.measurement import TokenSettings
from blockcoupling.config.places import block_number
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.jacobian.degenerate import IGNORED, LOST
from blockcoupling.jacobian.dense_svd import dense_triples
from blockcoupling.jacobian.matmul import full_float32
from blockcoupling.jacobian.spill import Spill
from blockcoupling.jacobian.svd import relative_residual
from blockcoupling.jacobian.token_jacobians import (
    ToToken,
    jacobians_to_token,
    record_to_token,
    truly_zero,
)
from blockcoupling.measurement.dataset import versions
from blockcoupling.measurement.prepare import Prepared
from blockcoupling.measurement.verification import refuse_unrepeatable
from blockcoupling.measurement.zero_jacobians import warn_of_zero_jacobians
from blockcoupling.store.comparisons import PLACES
from blockcoupling.transformer.recording import record_full
from blockcoupling.transformer.running import differentiable
from blockcoupling.transformer.tokens import TokenizedPrompt

if TYPE_CHECKING:
    from jaxtyping import Float

COMPARISONS = ("self", "input_fixed", "output_fixed")


def chosen_tokens(prompt: TokenizedPrompt) -> list[int]:
    """Positions to compare, ascending.

    Raises:
        UserError: pairs of tokens were chosen.
    """
    if any(a != b for a, b in prompt.pairs):
        raise UserError("tokens are compared one with another: give positions, not pairs of them")
    return sorted({a for a, _ in prompt.pairs})


def chosen_blocks(pairs: Sequence[Sequence[float]], blocks: int) -> list[tuple[int, int]]:
    """Pairs of blocks by number, 1 … L.

    Raises:
        UserError: a model of this depth does not have a block.
    """
    return [(block_number(a, blocks), block_number(b, blocks)) for a, b in pairs]


def compare_tokens(
    prepared: Prepared,
    prompt: TokenizedPrompt,
    settings: TokenSettings,
    progress: Callable[[], object] = lambda: None,
) -> xr.Dataset:
    """Compare the Jacobians of a prompt's tokens with each other.

    Args:
        prepared: the model, in memory.
        prompt: the prompt, with its tokens as pairs (t, t).
        settings: what to compare.
        progress: called once for every block and output token.

    Returns:
        A (comparison, k, k_other), S (comparison, k) of J_i, svd_residual (comparison); along
        comparison: prompt, kind, block, block_other, token_in, token_out, token_in_other,
        token_out_other (i, and "other" for j). Where a Jacobian is truly 0, S is 0 (as i) and A
        is NaN (as j).

    Raises:
        UserError: tokens or blocks do not exist, or the model is bidirectional or streamed.
        MeasurementError: naming block and tokens, for a Jacobian that is not finite, exactly −I,
            or exactly 0 while the block does change.
    """
    prepared.refuse_bidirectional("tokens are compared with each other", "tokenwise")
    if prepared.weights is not None:
        raise UserError("tokens are compared with the model in memory: set extract.stream: false")
    blocks, tokens = prepared.blocks, chosen_tokens(prompt)
    pairs = chosen_blocks(settings.blocks, len(blocks))
    k = min(settings.k, blocks.dimension)
    places = [(a, b) for b in tokens for a in tokens if a <= b]
    spill = Spill()
    try:
        with differentiable(prepared.model), full_float32():
            model, ids = prepared.model, prompt.input_ids.to(prepared.device).clone()
            whole = record_full(model, blocks, ids)
            refuse_unrepeatable(prompt.id, whole)
            recorded = [record_to_token(model, blocks, ids, b, whole) for b in tokens]
            found = {}
            zero: list[tuple[str, int]] = []
            for block in sorted({block for pair in pairs for block in pair}):
                parts = []
                for calls in recorded:
                    earlier = [t for t in tokens if t <= calls.token]
                    jacobians, _ = jacobians_to_token(calls, block - 1, earlier)
                    zero += _zero(jacobians, prompt.id, calls, block, earlier)
                    parts.append(_triples(jacobians, k, settings))
                    spill.put((block, calls.token), jacobians)
                    progress()
                found[block] = _Triples(*(torch.cat(each) for each in zip(*parts, strict=True)))
            rows = [
                row
                for block, other in pairs
                for row in _compared(block, other, tokens, places, found, spill, settings.swapped)
            ]
    finally:
        spill.close()
    warn_of_zero_jacobians(zero)
    # In the order of the kinds of comparison, then of the pairs as they were asked for.
    rows.sort(key=lambda row: COMPARISONS.index(row.kind))
    return _dataset(rows, prompt.id, settings)


class _Triples(NamedTuple):
    """Singular triples of one block's Jacobians between all chosen tokens."""

    U: Float[Tensor, "place embed k"]
    S: Float[Tensor, "place k"]
    V: Float[Tensor, "place embed k"]
    residual: Float[Tensor, " place"]


class _Row(NamedTuple):
    """One comparison: products by name, and what is stored of the first Jacobian."""

    kind: str
    places: tuple[int, ...]
    products: dict[str, Float[Tensor, "k k_other"]]
    S: Float[Tensor, " k"]
    residual: float


def _triples(
    jacobians: Float[Tensor, "token embed embed"], k: int, settings: TokenSettings
) -> _Triples:
    found, _ = dense_triples(jacobians, k, settings.tolerance, False, settings.seed)
    residual = relative_residual(jacobians @ found.V, found.U, found.S)
    return _Triples(found.U, found.S, found.V, residual)


def _compared(
    block: int,
    other: int,
    tokens: Sequence[int],
    places: Sequence[tuple[int, int]],
    found: dict[int, _Triples],
    spill: Spill,
    swapped: bool,
) -> Iterator[_Row]:
    """All comparisons of block's Jacobians with the other's."""
    mine, theirs = found[block], found[other]
    for b in tokens:
        jacobians = spill.get((block, b))
        for jacobian, a in zip(jacobians, (t for t in tokens if t <= b), strict=True):
            i = places.index((a, b))
            wanted = [
                (kind, j)
                for kind in COMPARISONS
                for j, place in enumerate(places)
                if _belongs(kind, (a, b), place)
            ]
            chosen = torch.tensor([j for _, j in wanted])
            u, v = theirs.U[chosen], theirs.V[chosen]
            products = {"A": (u.mT @ (jacobian @ v)).cpu()}
            if swapped:
                products["A_swapped"] = (v.mT @ (jacobian @ u)).cpu()
            for product in products.values():  # no singular vectors to compare with
                product[(theirs.S[chosen, 0] == 0).cpu()] = torch.nan
            S, residual = mine.S[i].cpu(), float(mine.residual[i])
            for n, (kind, j) in enumerate(wanted):
                one = {name: product[n] for name, product in products.items()}
                yield _Row(kind, (block, other, a, b, *places[j]), one, S, residual)


def _belongs(kind: str, place: tuple[int, int], other: tuple[int, int]) -> bool:
    (a, b), (c, d) = place, other
    return {"self": a == b and c == d, "input_fixed": a == c, "output_fixed": b == d}[kind]


def _zero(
    jacobians: Float[Tensor, "token embed embed"],
    prompt: str,
    calls: ToToken,
    block: int,
    tokens: Sequence[int],
) -> list[tuple[str, int]]:
    """Where the Jacobians are truly 0: prompt and tokens for a message, and the block.

    Raises:
        MeasurementError: a Jacobian is not finite, or exactly 0 or −I without a reason.
    """
    zero = []
    for t, jacobian in zip(tokens, jacobians, strict=True):
        place = f"prompt {prompt!r}, token {t} → {calls.token}"
        where = f"prompt {prompt!r}, block {block}, token {t} → {calls.token}: the Jacobian"
        if not bool(torch.isfinite(jacobian).all()):
            raise MeasurementError(f"{where} is not finite")
        if not bool(jacobian.any()):
            if not truly_zero(calls, block - 1, t):
                raise MeasurementError(f"{where} is exactly 0 ({LOST})")
            zero.append((place, block))
        elif t == calls.token and bool((jacobian == -torch.eye(len(jacobian)).to(jacobian)).all()):
            raise MeasurementError(f"{where} is exactly −I ({IGNORED})")
    return zero


def _dataset(rows: Sequence[_Row], prompt: str, settings: TokenSettings) -> xr.Dataset:
    def of(values: Iterable[Tensor]) -> np.ndarray:
        return torch.stack(list(values)).numpy().astype(np.float32)

    variables: dict[str, Any] = {
        name: (("comparison", "k", "k_other"), of(row.products[name] for row in rows))
        for name in rows[0].products
    }
    variables["S"] = (("comparison", "k"), of(row.S for row in rows))
    residuals = np.array([row.residual for row in rows], np.float32)
    variables["svd_residual"] = ("comparison", residuals)
    coordinates: dict[str, Any] = {
        **dict.fromkeys(("k", "k_other"), np.arange(1, len(rows[0].S) + 1)),
        "prompt": ("comparison", np.array([prompt] * len(rows), dtype=object)),
        "kind": ("comparison", np.array([row.kind for row in rows], dtype=object)),
    }
    for n, name in enumerate(PLACES):
        coordinates[name] = ("comparison", np.array([row.places[n] for row in rows]))
    attributes = {**versions(), "tolerance": settings.tolerance, "seed": settings.seed}
    return xr.Dataset(variables, coordinates, attributes)
