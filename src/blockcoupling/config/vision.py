"""A vision transformer and how it is trained: DeiT's recipe (arXiv 2012.12877, table 9)."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from blockcoupling.config.images import DigitsImages, ImageSource
from blockcoupling.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Section):
    """What is done to the training images; every default is DeiT's for images of 32 pixels."""

    crop: NonNegativeInt = 4
    """Pixels of black that an image gets all around before one of its size is cut out; 0: none."""
    flip: bool = True
    """Left and right change places, one time in two."""
    randaugment: NonNegativeInt = 2
    """RandAugment's operations an image; 0: none."""
    magnitude: float = Field(default=9.0, ge=0, le=10)
    """Of RandAugment, out of 10."""
    magnitude_spread: NonNegativeFloat = 0.5
    """Standard deviation of the magnitude from operation to operation."""
    erasing: Share = 0.25
    """How often a rectangle of an image becomes noise."""
    mixup: NonNegativeFloat = 0.8
    """Parameter α of the Beta distribution that says how two images are blended; 0: never."""
    cutmix: NonNegativeFloat = 1.0
    """The same of the area that is put in from another image; 0: never. With both, either is done
    one time in two."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Probability that the targets share out evenly among all classes."""


class VisionTraining(Section):
    """A ViT and how it is trained; sizes in pixels, times in passes over the images (epochs)."""

    architecture: Literal["vit"] = "vit"
    images: ImageSource = DigitsImages()
    image_count: PositiveInt | None = None
    """How many of the training images, drawn by seed 0; unset, all of them."""
    image_size: PositiveInt | None = None
    """Height and width that images are scaled to; unset, as they are."""
    patch: PositiveInt = 4
    hidden_size: PositiveInt = 192
    blocks: int = Field(default=12, ge=2)
    heads: PositiveInt = 3
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of initial weights; narrow models begin sooner with more."""
    batch: PositiveInt = 128
    epochs: PositiveInt = 300
    warmup: NonNegativeInt = 5
    """Epochs in which the learning rate rises."""
    learning_rate: PositiveFloat = 5.0e-4
    """The highest."""
    final_learning_rate: NonNegativeFloat = 1.0e-5
    weight_decay: NonNegativeFloat = 0.05
    """Of matrices; biases, norms, positions and the class token have none."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    stochastic_depth: float = Field(default=0.1, ge=0, lt=1)
    """How often the last block's branches are left out: earlier ones' less, the first's never."""
    augmentation: Augmentation = Augmentation()
    watched: NonNegativeInt = 1000
    """Held-out images, drawn by seed 0, whose loss and accuracy are told after every epoch."""
    processes: PositiveInt = 1
    """That share each batch: on as many GPUs of one machine or, where there is none, on its
    processors. The weights are those of one process to within rounding, not to the last bit."""
    seed: NonNegativeInt = 0

    @property
    def tokens(self) -> int:
        """Of an image: patches, and the class token; of images that are scaled, or of usual size.

        That is 8 pixels for the digits, 32 (CIFAR-10's) for others.
        """
        size = self.image_size or (8 if isinstance(self.images, DigitsImages) else 32)
        return (size // self.patch) ** 2 + 1

    @property
    def seen(self) -> int:
        """Images of an epoch: those asked for, else as many as digits or CIFAR-10 have."""
        usual = 1_437 if isinstance(self.images, DigitsImages) else 50_000
        return self.image_count or usual

    @model_validator(mode="after")
    def _fits(self) -> "VisionTraining":
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of {self.heads} heads"
            )
        if self.image_size is not None and self.image_size % self.patch:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch = {self.patch}"
            )
        if self.batch % self.processes:
            raise ValueError(
                f"batch {self.batch} is not a multiple of processes = {self.processes}"
            )
        if self.processes > 1 and self.dropout:
            raise ValueError(
                "dropout cannot be shared by several processes; set processes: 1 or dropout: 0"
            )
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup {self.warmup} is not below epochs = {self.epochs}")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate:g} is above learning_rate = "
                f"{self.learning_rate:g}"
            )
        return self
