"""Section `correlate`: which measurement is correlated with the scores, and how."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from blockcoupling.config.section import Section, Unit
from blockcoupling.config.variants import DEFAULT_VARIANT, VariantName

Resample = Literal["model", "family"]
"""What counts as an independent unit."""

ControlName = Literal["parameters", "depth", "width", "tokens"]
Hold = Literal["line", "classes"]


class Correlate(Section):
    """Which measurement is correlated with the scores, and what counts as independent."""

    k: Annotated[PositiveInt | None, Unit("singular triples")] = None
    """Unset: 10, or the largest tabulated K below it."""
    variant: VariantName = DEFAULT_VARIANT
    """Variant of mis-coupling."""
    bootstrap: Annotated[PositiveInt, Unit("resamples")] = 2000
    """Resamples of an interval."""
    checkpoints: Literal["all", "final"] = "all"
    """Whether all checkpoints are points, or the final ones."""
    seed: Annotated[NonNegativeInt | None, Field(examples=[1])] = None
    """Seed of the bootstrap; unset, the study's."""
    resample: Resample = "model"
    """Independent units of p-values and intervals: models, or families of models."""
    hold: dict[ControlName, Hold] = Field(examples=[{"width": "classes"}], default={})
    """How a partial correlation controls for parameters, depth, width, tokens: by a straight
    `line`, or by `classes` (a constant for each value). Unset: classes where there are three to
    five values, each with four points or more on average."""
