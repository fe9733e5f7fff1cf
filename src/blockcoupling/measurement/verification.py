"""Whether a token taken by itself is the token of the whole prompt: its state and its Jacobian.

A right state does not prove a right Jacobian (a detached or reused tensor has the right value and
no gradient), and one prompt does not stand for others (a rotary embedding may change with the
length). So every decoded token's state is compared with the whole prompt's pass, and every block is
called again to see that it returns what it did. The Jacobian, too, is compared with the one of the
whole prompt, by a product with a random vector: at the shortest and at the longest context so far,
and whenever a block's graph of operations is another than those seen before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.transformer.calls import BlockCall

if TYPE_CHECKING:
    from jaxtyping import Float

# Rounding grows through the blocks: 1e4 eps (1e-3) allows for it, and a token seen at another
# position or past another context is off by far more. That of float32 in float64 too, since most
# models take their softmax in float32 all the same.
EPS = torch.finfo(torch.float32).eps
ALLOWED = 1e4 * EPS


def other_state(
    token: int, calls: Sequence[BlockCall], states: Float[np.ndarray, "token state embed"]
) -> str | None:
    """How a decoded token's hidden states differ from those of the whole prompt's pass, if they do.

    Args:
        token: its position.
        calls: the blocks' calls for it.
        states: of the whole prompt.
    """
    for state, call in enumerate(calls, start=1):
        decoded = call.output[0, -1].double().cpu().numpy()
        whole = states[token, state]
        error, size = np.linalg.norm(decoded - whole), np.linalg.norm(whole)
        if not error <= ALLOWED * size:
            return (
                f"gives another hidden state after block {state} than the whole prompt does "
                f"(relative difference {error / size:.1e})"
            )
    return None


def refuse_unrepeatable(prompt: str, calls: Sequence[BlockCall]) -> None:
    """Refuse blocks that return something else when they are called again as they were.

    Raises:
        MeasurementError: naming prompt and block.
    """
    for block, call in enumerate(calls, start=1):
        with torch.no_grad():
            again = call(call.input)
        if not _same_output(again, call.output):
            raise MeasurementError(
                f"prompt {prompt!r}, block {block}: called again with the same arguments, the "
                "block returns something else (a state of its own, or chance, takes part)"
            )


@dataclass
class Verifier:
    """Compares decoded tokens' Jacobians with the whole prompt's; remembers what it has seen.

    Attributes:
        shortest, longest: contexts (tokens, the decoded one among them) at which every block has
            been compared.
        graphs: of each block, the graphs of operations that have been compared.
    """

    shortest: int | None = None
    longest: int | None = None
    graphs: set[tuple[int, str]] = field(default_factory=set)
    _thorough: frozenset[tuple[int, str]] = frozenset()

    def plan(self, places: Iterable[tuple[int, str]], each_batch: bool = False) -> None:
        """Take in what comes next, (token, prompt) of each: its ends are compared at every block.

        Lengths between those at which blocks have been compared need not be, unless a block does
        there what it has not done before.

        Args:
            places: where tokens are taken by themselves; where all tokens of a prompt act on each
                other, its last token stands for it.
            each_batch: compare again at the ends of what comes next, whatever has been before.
        """
        wanted = sorted(places)
        ends = {wanted[0], wanted[-1]} if wanted else set()
        self._thorough = frozenset(
            (token, prompt)
            for token, prompt in ends
            if each_batch
            or self.shortest is None
            or self.longest is None
            or not self.shortest <= token + 1 <= self.longest
        )

    def other_jacobian(
        self,
        prompt: str,
        token: int,
        decoded: Sequence[BlockCall],
        whole: Sequence[BlockCall],
        last: int | None = None,
    ) -> str | None:
        """How a decoded token's Jacobians differ from the whole prompt's, if they do.

        Args:
            prompt: the prompt's id.
            token: the token's position in it.
            decoded: the blocks' calls for the token.
            whole: their calls on the whole prompt.
            last: the last token that acts on it; None: it is that itself.
        """
        last = token if last is None else last
        thorough = (last, prompt) in self._thorough
        for block, (call, reference) in enumerate(zip(decoded, whole, strict=True)):
            x, y = _at(call, 0)
            if not _same_output(y[None, None], call.output):
                return (
                    f"cannot be repeated (block {block + 1}, called again with the same arguments, "
                    "returns something else)"
                )
            graph = (block, operations(y))
            if not thorough and graph in self.graphs:
                continue
            u = torch.randn(
                y.shape, generator=torch.Generator().manual_seed(block), dtype=torch.float64
            ).to(y)
            mine, theirs = _pulled(x, y, u), _pulled(*_at(reference, token), u)
            if not _agree(mine, theirs, u):
                return f"gives another Jacobian of block {block + 1} than the whole prompt does"
            self.graphs.add(graph)
        if thorough:
            self._thorough -= {(last, prompt)}
            length = last + 1
            self.shortest = length if self.shortest is None else min(self.shortest, length)
            self.longest = length if self.longest is None else max(self.longest, length)
        return None


def operations(y: Tensor) -> str:
    """A digest of the operations that autograd has recorded of a value, in order."""
    digest, seen = hashlib.blake2b(digest_size=16), set()
    pending = [y.grad_fn]
    while pending:
        node = pending.pop()
        known = node is None or node in seen
        digest.update(f"{'' if node is None else node.name()}{known};".encode())
        if node is not None and not known:
            seen.add(node)
            pending.extend(following for following, _ in node.next_functions)
    return digest.hexdigest()


def _at(call: BlockCall, token: int) -> tuple[Float[Tensor, " embed"], Float[Tensor, " embed"]]:
    """One token's state on its way into a block, and what it is on its way out, with its graph."""
    whole = call.input.to(call.output.device)
    with torch.enable_grad():
        x = whole[0, token].detach().clone().requires_grad_(True)
        parts = [whole[:, :token], x[None, None], whole[:, token + 1 :]]
        hidden = torch.cat([part for part in parts if part.shape[1]], dim=1)
        return x, call(hidden)[0, token]


def _pulled(x: Tensor, y: Tensor, u: Tensor) -> Float[Tensor, " embed"]:
    """∂(y·u)/∂x; zero where no gradient comes through, which is told where it is measured."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (pulled,) = torch.autograd.grad(y, x, u.to(y), allow_unused=True)
    return torch.zeros_like(x) if pulled is None else pulled


def _agree(mine: Tensor, theirs: Tensor, u: Tensor) -> bool:
    """Whether two products are the same: what counts is what they differ from the identity by."""
    limit = ALLOWED * (theirs - u).norm() + 30 * EPS * u.norm()
    difference = (mine - theirs).norm()
    return bool(difference <= limit) or not bool(torch.isfinite(theirs).all())


def _same_output(again: Tensor, output: Tensor) -> bool:
    again, output = again.detach().nan_to_num(), output.nan_to_num()
    return bool((again - output).norm() <= 1e3 * EPS * output.norm())
