"""Displacements: the last token's state, before a block, moved a little along a direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from blockcoupling.config.damage import Change
from blockcoupling.measurement.measure_batch import measure_batch
from blockcoupling.measurement.prepare import Prepared
from blockcoupling.transformer.tokens import TokenizedPrompt

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Displacement:
    """Moves the last tokens of a batch of texts.

    Attributes:
        texts: the batch.
        first: first right singular vectors of the blocks' Jacobians at the last tokens,
            (text, block, embed); empty if they are not needed.
        push: length of a displacement, as a share of the length of the state.
    """

    texts: Sequence[TokenizedPrompt]
    first: Float[np.ndarray, "text block embed"]
    push: float

    @classmethod
    def of(
        cls, prepared: Prepared, texts: Sequence[TokenizedPrompt], push: float, singular: bool
    ) -> Displacement:
        """Measure the directions.

        Args:
            prepared: a model whose settings keep the vectors of one singular value.
            texts: the batch.
            push: as in the class.
            singular: whether singular vectors are needed; random directions need none.

        Raises:
            MeasurementError: a Jacobian cannot be measured.
        """
        ends = [replace(text, pairs=((text.length - 1, text.length - 1),)) for text in texts]
        measured = measure_batch(prepared, ends) if singular else []
        first = [ds["V"].isel(prompt=0, pair=0, k=0).values for ds in measured]
        return cls(texts, np.array(first), push)

    def moved(
        self, hidden: Float[Tensor, "text token embed"], change: Change
    ) -> tuple[Float[Tensor, "text token embed"], Float[np.ndarray, " text"]]:
        """Return the states with the last tokens moved, and how far they were moved.

        Args:
            hidden: input of the block `change.block`.
            change: one of `config.damage.DISPLACEMENTS`.
        """
        moved, lengths = hidden.clone(), []
        for row, text in enumerate(self.texts):
            end = text.length - 1
            if change.treatment == "displace":
                direction = self.first[row, change.block_other - 1]
            else:
                direction = random_direction(text, change.block, hidden.shape[-1])
            length = self.push * hidden[row, end].norm()
            moved[row, end] += length * torch.tensor(direction).to(hidden)
            lengths.append(float(length))
        return moved, np.array(lengths)


def random_direction(text: TokenizedPrompt, block: int, width: int) -> Float[np.ndarray, " embed"]:
    """A unit vector, uniform on the sphere; the same for the same tokens and block."""
    drawn = np.random.default_rng([block, *text.input_ids[0].tolist()]).standard_normal(width)
    return drawn / np.linalg.norm(drawn)
