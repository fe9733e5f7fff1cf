"""Images as a model sees them: which of its tokens are patches, and which are the model's own.

Tokens are classified by what they do, not by name: a token that enters the first block with the
same state for every image is the model's own (a class token, registers); the others are patches.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.agreement import agreeing, identical, random_like
from blockcoupling.transformer.blocks import Blocks, explained
from blockcoupling.transformer.recording import record_full

IDS, PIXELS = "input_ids", "pixel_values"


@dataclass(frozen=True)
class Layout:
    """The tokens that a model makes of an image.

    Attributes:
        tokens: their number.
        patches: positions of those that change with the image, ascending.
    """

    tokens: int
    patches: tuple[int, ...]

    @property
    def own(self) -> tuple[int, ...]:
        """Positions of the tokens that are the same for every image."""
        return tuple(t for t in range(self.tokens) if t not in set(self.patches))

    @property
    def token_text(self) -> tuple[str, ...]:
        """A name for each token: class, extra 1 …, and for patches their number, 0 …."""
        names = {t: "class" if i == 0 else f"extra {i}" for i, t in enumerate(self.own)}
        names |= {t: str(i) for i, t in enumerate(self.patches)}
        return tuple(names[t] for t in range(self.tokens))


@dataclass(frozen=True)
class Picture:
    """An image as the model sees it.

    Attributes:
        id: stable name of the image.
        given: its preprocessed pixel values, (1, channel, height, width).
        layout: its tokens.
        pairs: pairs of tokens (t1, t2) to measure, once they have been worked out.
    """

    id: str
    given: Float[Tensor, "1 channel height width"]
    layout: Layout
    pairs: tuple[tuple[int, int], ...] = ()

    @property
    def beginning(self) -> Float[Tensor, "1 channel height width"]:
        """An input that shows what the model does: the whole image."""
        return self.given

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.layout.tokens

    @property
    def token_text(self) -> tuple[str, ...]:
        """A name for each token."""
        return self.layout.token_text

    @property
    def places(self) -> dict[str, tuple[int, ...]]:
        """Positions by name: the class token, the last patch, all patches."""
        patches = self.layout.patches
        return {"class": self.layout.own[:1], "last": patches[-1:], "mean": patches}


def takes_images(model: nn.Module) -> bool:
    """Whether a model takes images and no text, as its forward shows.

    What its class declares counts only if the forward names neither input.
    """
    named = named_inputs(model)
    return named == {PIXELS} if named else getattr(model, "main_input_name", None) == PIXELS


def takes_texts(model: nn.Module) -> bool:
    """Whether a model takes texts, perhaps with images."""
    if named := named_inputs(model):
        return IDS in named
    declared = getattr(model, "main_input_name", None)
    open_ended = inspect.Parameter.VAR_KEYWORD in {
        parameter.kind for parameter in inspect.signature(model.forward).parameters.values()
    }
    return open_ended and declared not in (None, PIXELS)


def image_parts(model: nn.Module) -> dict[str, nn.Module]:
    """The outermost models inside a model that take images and no text, by name."""
    found: dict[str, nn.Module] = {}
    for part, module in model.named_modules():
        inside = any(part.startswith(f"{outer}.") for outer in found)
        blocks = any(isinstance(each, nn.ModuleList) for each in module.modules())
        if blocks and not inside and named_inputs(module) == {PIXELS}:
            found[part] = module
    return found


def named_inputs(model: nn.Module) -> set[str]:
    """Which of token ids and pixel values the forward of a model names."""
    return {IDS, PIXELS} & inspect.signature(model.forward).parameters.keys()


def channels_of(model: nn.Module) -> int:
    """How many channels a model's first convolution takes; 3 without one."""
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    return next((each.in_channels for each in convolutions), 3)


def pixel_values_of(images: object) -> list[Float[Tensor, "channel height width"]]:
    """The pixel values that a user passed as images.

    Args:
        images: a tensor or array (image, channel, height, width), preprocessed for the model; a
            list of (channel, height, width), perhaps of different sizes; or a mapping with
            `pixel_values`, as image processors return it.

    Raises:
        UserError: the argument is none of these.
    """
    if isinstance(images, Mapping) or hasattr(images, PIXELS):
        held: Any = images
        images = held.get(PIXELS) if isinstance(held, Mapping) else held[PIXELS]
    what = "pixel values (image, channel, height, width), as the model's image processor makes them"
    several: list[Any] = list(images) if isinstance(images, list | tuple) else []
    arrays = bool(several) and all(hasattr(each, "shape") for each in several)
    if arrays and len({tuple(each.shape) for each in several}) > 1:
        return [value for each in several for value in pixel_values_of([each])]
    try:
        if arrays:
            images = torch.stack([torch.as_tensor(each) for each in several])
        values = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"images are {what}, not a {type(images).__name__}") from error
    if values.ndim != 4 or 0 in values.shape:
        raise UserError(f"images are {what}, not of shape {tuple(values.shape)}")
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        raise UserError(f"images are {what}, which are floating-point numbers, not {kind}")
    broken = (~torch.isfinite(values)).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise UserError(f"image {broken[0]} has pixel values that are not finite")
    return list(values)


def find_layout(
    model: nn.Module, blocks: Blocks, image: Float[Tensor, "1 channel height width"]
) -> Layout:
    """Distinguish a model's patches from its own tokens, with an image and noise.

    Args:
        model: the model.
        blocks: its blocks.
        image: pixel values.

    Raises:
        UserError: one image gives different tokens twice, or no token changes with the image.
    """
    # Other noise for every image: an image may itself be noise, of any seed.
    seed = hashlib.blake2b(image.cpu().double().numpy().tobytes(), digest_size=7).digest()
    noise = random_like(image, int.from_bytes(seed, "big"))
    name = type(model).__name__
    with explained(model, image):
        first, again, other = (
            record_full(model, blocks, given)[0].input[0] for given in (image, image, noise)
        )
    if not identical(first, again):
        raise UserError(
            f"{name} gives different tokens for the same image (it masks patches at random); it "
            "cannot be measured"
        )
    patches = (~agreeing(other, first)).nonzero().flatten().tolist()
    if not patches:
        raise UserError(f"{name}: no token that enters the first block changes with the image")
    return Layout(len(first), tuple(patches))
