"""How images are changed while an image model trains: DeiT's recipe (arXiv 2012.12877, table 9)."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt

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
