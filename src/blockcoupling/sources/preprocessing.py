"""Pictures as a model wants them: its own image processor's pixel values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from blockcoupling.errors import UserError
from blockcoupling.sources.pictures import Picture

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def prepared(
    processor: Callable[..., Any], pictures: Sequence[Picture]
) -> Float[Tensor, "image channel height width"]:
    """The pixel values of images, resized and scaled by a model's image processor.

    Raises:
        UserError: the processor makes no such array of them.
    """
    import numpy as np
    import torch
    from PIL import Image

    try:
        # One by one: pictures of several sizes become of one size on the way. As Pillow's images:
        # of an array that is three pixels high, a processor takes the rows for the colours.
        values = [
            processor(images=Image.fromarray(np.asarray(picture)), return_tensors="pt")
            for picture in pictures
        ]
        return torch.cat([value["pixel_values"] for value in values])
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"the model's image processor cannot prepare the images: {why}") from error
