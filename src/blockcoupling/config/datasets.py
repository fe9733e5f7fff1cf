"""The sections of prompts: built in, in a local file, on the hub, or images."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from blockcoupling.config.choices import Modality
from blockcoupling.config.images import ImagePrompts
from blockcoupling.config.questions import TEMPLATES
from blockcoupling.config.section import OneOf, Section, Unit, UserPath
from blockcoupling.wording import did_you_mean


def _known_template(name: str) -> str:
    if name not in TEMPLATES:
        raise ValueError(f"unknown template {name!r}{did_you_mean(name, TEMPLATES)}")
    return name


Template = Annotated[str, AfterValidator(_known_template)]


class DatasetSection(Section):
    """What every set of prompts can say."""

    holds: ClassVar[Modality] = "text"
    """What a model that is measured at it takes."""
    prompts: Annotated[PositiveInt | None, Unit("prompts")] = None
    """How many to sample; unset, all of them."""
    seed: Annotated[NonNegativeInt | None, Field(examples=[1])] = None
    """Seed of the sample; unset, the study's."""
    max_bytes: Annotated[PositiveInt | None, Unit("bytes")] = None
    """Exclude longer prompts before sampling (for models whose tokens are bytes)."""


class BuiltinDataset(DatasetSection):
    """Prompts that come with the package: held-out text of the training corpus, or written ones."""

    source: Literal["builtin"] = "builtin"
    """Kind of source; may be omitted."""
    name: Literal["heldout", "handwritten"]
    """Which of the two."""


class JsonlDataset(DatasetSection):
    """Prompts from a file with one JSON object a line."""

    source: Literal["jsonl"] = "jsonl"
    """Kind of source; may be omitted."""
    path: Annotated[UserPath, Field(examples=["prompts.jsonl"])]
    """The file."""
    template: Template = "text"
    """How a prompt is made from a row."""


class HubDataset(DatasetSection):
    """Prompts from a dataset of the Hugging Face hub."""

    source: Literal["hub"] = "hub"
    """Kind of source; may be omitted."""
    id: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")
    """Name on the hub."""
    config: str | None = None
    """Its configuration, where it has several."""
    split: str = "test"
    """Its split."""
    revision: str
    """A commit, so that the same prompts come back; `main` is accepted, and recorded resolved."""
    template: Template
    """How a prompt is made from a row."""


class ImageDataset(ImagePrompts):
    """Labelled images, for image models."""

    holds: ClassVar[Modality] = "image"
    source: Literal["images"] = "images"
    """Kind of source; may be omitted."""


DATASETS = OneOf(
    {"builtin": BuiltinDataset, "jsonl": JsonlDataset, "hub": HubDataset, "images": ImageDataset},
    {"images": "images", "path": "jsonl", "id": "hub", "name": "builtin"},
)
Dataset = Annotated[BuiltinDataset | JsonlDataset | HubDataset | ImageDataset, DATASETS.validator()]
