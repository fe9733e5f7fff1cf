"""Section `correlate`: which measurement is correlated with the scores, and how."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from blockcoupling.config.section import Section
from blockcoupling.config.variants import DEFAULT_VARIANT, VariantName


class Correlate(Section):
    """What is held against the score."""

    k: PositiveInt | None = None
    """Unset: 10, or the largest tabulated K below it."""
    variant: VariantName = DEFAULT_VARIANT
    bootstrap: PositiveInt = 2000
    checkpoints: Literal["all", "final"] = "all"
    seed: NonNegativeInt | None = None
    """Seed of the bootstrap; unset, the study's."""
