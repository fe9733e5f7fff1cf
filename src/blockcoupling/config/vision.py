"""A vision transformer and how it is trained: DeiT's recipe (arXiv 2012.12877, table 9)."""

from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from blockcoupling.config.images import DigitsImages, ImageSource
from blockcoupling.config.section import Section, Unit

Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Section):
    """Augmentation of training images; every default is DeiT's for images of 32 pixels."""

    crop: Annotated[NonNegativeInt, Unit("pixels")] = 4
    """Black pixels added on all sides before a crop of the original size; 0: none."""
    flip: bool = True
    """Random horizontal flip with probability 0.5."""
    randaugment: Annotated[NonNegativeInt, Unit("operations per image")] = 2
    """Number of RandAugment operations per image; 0: none."""
    magnitude: Annotated[float, Unit("steps of RandAugment, of 10")] = Field(
        default=9.0, ge=0, le=10
    )
    """Magnitude of RandAugment, out of 10."""
    magnitude_spread: Annotated[NonNegativeFloat, Unit("steps of RandAugment")] = 0.5
    """Standard deviation of the magnitude from operation to operation."""
    erasing: Annotated[Share, Unit("probability")] = 0.25
    """Probability that a rectangle of an image is replaced by noise."""
    mixup: Annotated[NonNegativeFloat, Unit("none")] = 0.8
    """Parameter α of the Beta distribution of mixing weights; 0: no mixup."""
    cutmix: Annotated[NonNegativeFloat, Unit("none")] = 1.0
    """Parameter α for the area that is pasted from another image; 0: no cutmix. With both, one of
    them is chosen with probability 0.5."""
    label_smoothing: Annotated[float, Unit("probability")] = Field(default=0.1, ge=0, lt=1)
    """Probability that the targets spread evenly over all classes."""


class VisionTraining(Section):
    """A ViT and how it is trained; sizes in pixels, times in passes over the images (epochs)."""

    schedule: ClassVar[str] = "cosine"
    """Of the learning rate, as in `Training`; not a setting here."""
    architecture: Literal["vit"] = "vit"
    """Trains a vision transformer."""
    images: ImageSource = DigitsImages()
    image_count: Annotated[PositiveInt | None, Unit("images")] = None
    """Number of training images, sampled with seed 0; default: all."""
    random_labels: Annotated[Share, Unit("share")] = 0.0
    """Share of them whose label is drawn at random: it can only be memorized."""
    image_size: Annotated[PositiveInt | None, Unit("pixels", 32)] = None
    """Height and width that images are scaled to; default: not scaled."""
    patch: Annotated[PositiveInt, Unit("pixels")] = 4
    """Edge of a patch, in pixels."""
    hidden_size: Annotated[PositiveInt, Unit("dimensions")] = 192
    """Width d of the residual stream."""
    blocks: Annotated[int, Unit("blocks")] = Field(default=12, ge=2)
    """Number of blocks."""
    heads: Annotated[PositiveInt, Unit("heads")] = 3
    """Attention heads per block."""
    initializer_range: Annotated[PositiveFloat, Unit("standard deviation of a weight")] = 0.02
    """Standard deviation of initial weights; narrow models learn sooner with a larger one."""
    batch: Annotated[PositiveInt, Unit("images")] = 128
    """Images per update."""
    epochs: Annotated[PositiveInt, Unit("epochs")] = 300
    """Passes over the training images."""
    warmup: Annotated[NonNegativeInt, Unit("epochs")] = 5
    """Epochs in which the learning rate increases."""
    learning_rate: Annotated[PositiveFloat, Unit("per update")] = 5.0e-4
    """The highest learning rate."""
    final_learning_rate: Annotated[NonNegativeFloat, Unit("per update")] = 1.0e-5
    """Learning rate at the end of the cosine."""
    weight_decay: Annotated[NonNegativeFloat, Unit("per update, over the learning rate")] = 0.05
    """Weight decay of matrices; biases, norms, positions and the class token have none."""
    dropout: Annotated[float, Unit("probability")] = Field(default=0.0, ge=0, lt=1)
    """Share of values dropped in training."""
    stochastic_depth: Annotated[float, Unit("probability")] = Field(default=0.1, ge=0, lt=1)
    """Probability of dropping the last block's branches: less in earlier blocks, 0 in the first."""
    augmentation: Augmentation = Augmentation()
    watched: Annotated[NonNegativeInt, Unit("images")] = 1000
    """Held-out images, sampled with seed 0, to log loss and accuracy on after every epoch."""
    processes: Annotated[PositiveInt, Unit("processes")] = 1
    """Processes that share each batch: one per GPU of a machine or, without GPUs, on its
    processors. The weights equal those of one process up to rounding, not to the last bit."""
    seed: NonNegativeInt = 0
    """Seed of the weights and of everything that is drawn in training."""

    @property
    def tokens(self) -> int:
        """Tokens of an image: its patches and the class token.

        Images that are not scaled count as 8 pixels wide (digits) or 32 (others, as in CIFAR-10).
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
