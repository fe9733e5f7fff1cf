"""Images as the model sees them: which of its tokens are patches, and which its own.

Told by what they do, not by what they are called: a token that is the same whatever the image is,
on its way into the first block, is one of the model's own (a class token, registers); the others
are patches.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.agreement import agreeing, identical
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.recording import record_full

PIXELS = "pixel_values"


@dataclass(frozen=True)
class Layout:
    """What a model makes of an image.

    Attributes:
        tokens: how many tokens an image has.
        patches: which of them change with the image, ascending.
    """

    tokens: int
    patches: tuple[int, ...]

    @property
    def own(self) -> tuple[int, ...]:
        """The tokens that are the same for every image."""
        return tuple(t for t in range(self.tokens) if t not in set(self.patches))

    @property
    def token_text(self) -> tuple[str, ...]:
        """A name for each token: class, extra 1 …, and patches by their number 0 …."""
        names = {t: "class" if i == 0 else f"extra {i}" for i, t in enumerate(self.own)}
        names |= {t: str(i) for i, t in enumerate(self.patches)}
        return tuple(names[t] for t in range(self.tokens))


@dataclass(frozen=True)
class Picture:
    """An image as the model sees it.

    Attributes:
        id: stable name of the image.
        given: its pixel values, (1, channel, height, width), as the model's preprocessing has them.
        layout: what the model makes of it.
    """

    id: str
    given: Float[Tensor, "1 channel height width"]
    layout: Layout

    @property
    def beginning(self) -> Float[Tensor, "1 channel height width"]:
        """Enough of it to see what the model does: all of it."""
        return self.given

    @property
    def length(self) -> int:
        """How many tokens it has."""
        return self.layout.tokens

    @property
    def token_text(self) -> tuple[str, ...]:
        """A name for each token."""
        return self.layout.token_text

    @property
    def places(self) -> dict[str, tuple[int, ...]]:
        """Which tokens a word names: the class token, the last patch, all patches."""
        patches = self.layout.patches
        return {"class": self.layout.own[:1], "last": patches[-1:], "mean": patches}


def takes_images(model: nn.Module) -> bool:
    """Whether a model takes images, and no text beside them."""
    named = getattr(model, "main_input_name", None)
    if named is not None:
        return named == PIXELS
    taken = inspect.signature(model.forward).parameters
    return PIXELS in taken and "input_ids" not in taken


def pixel_values_of(images: object) -> Float[Tensor, "image channel height width"]:
    """The pixel values that a user handed over as images.

    Args:
        images: (image, channel, height, width), a tensor or an array, in the model's own
            preprocessing; or a mapping that holds them, as image processors return it.

    Raises:
        UserError: they are something else.
    """
    if isinstance(images, Mapping) or hasattr(images, PIXELS):
        held: Any = images
        images = held.get(PIXELS) if isinstance(held, Mapping) else held[PIXELS]
    what = "pixel values (image, channel, height, width), as the model's image processor makes them"
    try:
        values = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"images are {what}, not a {type(images).__name__}") from error
    if values.ndim != 4 or 0 in values.shape:
        raise UserError(f"images are {what}; these have the shape {tuple(values.shape)}")
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        raise UserError(f"images are {what}, and those are no whole numbers ({kind})")
    broken = (~torch.isfinite(values)).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise UserError(f"image {broken[0]} has pixel values that are not finite")
    return values


def find_layout(
    model: nn.Module, blocks: Blocks, image: Float[Tensor, "1 channel height width"]
) -> Layout:
    """Tell a model's patches from its own tokens, by passing an image and noise.

    Args:
        model: the model.
        blocks: its blocks.
        image: pixel values.

    Raises:
        UserError: if the same image is not the same twice, or no token changes with it.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(image.shape, generator=generator).to(image)
    first, again, other = (
        record_full(model, blocks, given)[0].input[0] for given in (image, image, noise)
    )
    name = type(model).__name__
    if not identical(first, again):
        raise UserError(
            f"{name} sees something else of one image each time (it masks patches at random); it "
            "cannot be measured"
        )
    patches = (~agreeing(other, first)).nonzero().flatten().tolist()
    if not patches:
        raise UserError(f"{name}: no token on its way into the first block changes with the image")
    return Layout(len(first), tuple(patches))
