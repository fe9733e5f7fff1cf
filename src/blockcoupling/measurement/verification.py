"""Whether a token taken by itself is the token of the whole prompt: its state and its Jacobian.

A right state does not prove a right Jacobian (a detached or reused tensor has the right value and
no gradient), and one prompt proves nothing for others (a rotary embedding may change with the
length). So the state of every decoded token is compared with the full forward pass, and every block
is called again to see whether it returns the same. The Jacobian, too, is compared with that of the
full pass, by a product with a random vector: at the shortest and at the longest context so far, and
whenever a block's graph of operations has not been seen before.
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
from blockcoupling.transformer import agreement
from blockcoupling.transformer.agreement import UNREPEATABLE, WHY_UNREPEATABLE, pulled_back
from blockcoupling.transformer.calls import BlockCall

if TYPE_CHECKING:
    from jaxtyping import Float


def other_state(
    token: int, calls: Sequence[BlockCall], states: Float[np.ndarray, "token state embed"]
) -> str | None:
    """How a decoded token's hidden states differ from those of the full forward pass, if they do.

    Args:
        token: its position.
        calls: the blocks' calls for it.
        states: of the whole prompt.
    """
    for state, call in enumerate(calls, start=1):
        decoded = call.output[0, -1].double().cpu()
        whole = torch.from_numpy(states[token, state])
        if not agreement.agree(decoded, whole, agreement.GROWN):
            error, size = (decoded - whole).norm(), whole.norm()
            return (
                f"gives another hidden state after block {state} than the whole prompt does "
                f"(relative difference {error / size:.1e})"
            )
    return None


def refuse_unrepeatable(prompt: str, calls: Sequence[BlockCall]) -> None:
    """Refuse blocks that return something different when they are called again.

    Raises:
        MeasurementError: naming prompt and block.
    """
    for block, call in enumerate(calls, start=1):
        if not agreement.repeats(call):
            raise MeasurementError(
                f"prompt {prompt!r}: block {block}, {UNREPEATABLE} ({WHY_UNREPEATABLE})"
            )


@dataclass
class Verifier:
    """Compares Jacobians of decoded tokens with those of the full pass; remembers what it has seen.

    Attributes:
        shortest, longest: contexts (in tokens, including the decoded one) at which every block has
            been compared.
        graphs: block and graph of operations that have been compared.
    """

    shortest: int | None = None
    longest: int | None = None
    graphs: set[tuple[int, str]] = field(default_factory=set)
    _thorough: frozenset[tuple[int, str]] = frozenset()

    def plan(self, places: Iterable[tuple[int, str]], each_batch: bool = False) -> None:
        """Plan to compare every block at the shortest and the longest of the next contexts.

        Contexts between two that have been compared are not compared, unless a block does something
        new there.

        Args:
            places: (token, prompt) of each; in a bidirectional model, the prompt's last token.
            each_batch: compare again, even between contexts that have been compared.
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
        """How a decoded token's Jacobians differ from those of the full pass, if they do.

        Args:
            prompt: the prompt's id.
            token: the token's position in it.
            decoded: the blocks' calls for the token.
            whole: their calls on the whole prompt.
            last: the last token that acts on it; None: the token itself.
        """
        last = token if last is None else last
        thorough = (last, prompt) in self._thorough
        for block, (call, reference) in enumerate(zip(decoded, whole, strict=True)):
            x, y = agreement.at_token(call, 0)
            if not agreement.agree(y[None, None].detach(), call.output):
                return f"cannot be repeated (block {block + 1}, {UNREPEATABLE})"
            graph = (block, operations(y))
            if not thorough and graph in self.graphs:
                continue
            u = agreement.random_like(y.detach(), seed=block)
            mine = pulled_back(x, y, u)
            theirs = pulled_back(*agreement.at_token(reference, token), u)
            if not agreement.agree(mine, theirs, agreement.GROWN, carried=u):
                return f"gives another Jacobian of block {block + 1} than the whole prompt does"
            self.graphs.add(graph)
        if thorough:
            self._thorough -= {(last, prompt)}
            length = last + 1
            self.shortest = length if self.shortest is None else min(self.shortest, length)
            self.longest = length if self.longest is None else max(self.longest, length)
        return None


def operations(y: Tensor) -> str:
    """A digest of the operations that autograd recorded for a value, in order."""
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
