"""The sections of labelled images: built in, CIFAR-10, a folder, a dataset of the hub."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from blockcoupling.config.section import OneOf, Section, Unit, UserPath

Split = Literal["train", "test"]


class DigitsImages(Section):
    """Scans of handwritten digits, 8 × 8 pixels, that scikit-learn carries."""

    source: Literal["digits"] = "digits"
    """Kind of source; may be omitted."""


class Cifar10Images(Section):
    """CIFAR-10 in files on this machine: its binary or Python archive, unpacked or not, or npz."""

    source: Literal["cifar10"] = "cifar10"
    """Kind of source; may be omitted."""
    path: UserPath
    """Directory of its files in the version for Python."""


class FolderImages(Section):
    """Folders `train` and `test`, each with a folder of image files for each class."""

    source: Literal["folder"] = "folder"
    """Kind of source; may be omitted."""
    path: Annotated[UserPath, Field(examples=["pictures"])]
    """The folder."""


class HubImages(Section):
    """Images of a dataset of the Hugging Face hub."""

    source: Literal["hub"] = "hub"
    """Kind of source; may be omitted."""
    id: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")
    """Name on the hub."""
    config: Annotated[str | None, Field(examples=["plain_text"])] = None
    """Its configuration, where it has several."""
    revision: str
    """A commit, so that the same images come back; `main` is accepted, and recorded resolved."""
    image: str = "img"
    """The column of images."""
    label: str = "label"
    """The column of their classes."""


IMAGES = OneOf(
    {
        "digits": DigitsImages,
        "cifar10": Cifar10Images,
        "folder": FolderImages,
        "hub": HubImages,
    },
    {"id": "hub"},
)
ImageSource = Annotated[DigitsImages | Cifar10Images | FolderImages | HubImages, IMAGES.validator()]


class ImagePrompts(Section):
    """Images to measure at."""

    images: ImageSource
    split: Split = "test"
    """Those to train on, or those held out."""
    prompts: Annotated[PositiveInt | None, Unit("images")] = None
    """How many to sample; unset, all of them."""
    seed: Annotated[NonNegativeInt | None, Field(examples=[1])] = None
    """Seed of the sample; unset, 0."""
