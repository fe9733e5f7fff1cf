"""Images on their way into a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from blockcoupling.errors import UserError
from blockcoupling.measurement.checking import refuse_images
from blockcoupling.measurement.instrument import Instrument
from blockcoupling.transformer.images import Picture, find_layout
from blockcoupling.transformer.running import differentiable

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def as_seen(
    instrument: Instrument,
    names: Sequence[str],
    values: Float[Tensor, "image channel height width"],
) -> list[Picture]:
    """Images as the model of an instrument sees them.

    Args:
        instrument: the model, set up.
        names: of the images.
        values: their pixel values, in the model's own preprocessing.

    Raises:
        UserError: there is none, or the model takes no such images.
    """
    refuse_images(instrument.model)
    if not names:
        raise UserError("there is no image to measure")
    weights = next(p.dtype for p in instrument.model.parameters() if p.is_floating_point())
    values = values.to(instrument.device, weights)
    blocks = instrument.blocks_by(values[:1])
    with differentiable(instrument.model), torch.no_grad():
        layout = find_layout(instrument.model, blocks, values[:1])
    return [Picture(name, value[None], layout) for name, value in zip(names, values, strict=True)]
