"""Section `tokenwise`: comparing the Jacobians of a prompt's tokens."""

from typing import Literal

from pydantic import Field, PositiveInt

from blockcoupling.config.measurement import CompareTokens
from blockcoupling.config.places import Positions
from blockcoupling.config.section import Name


class Tokenwise(CompareTokens):
    """Whether, and of what, Jacobians are compared between tokens."""

    tokens: Positions = Field(default={"every": 4})
    """`all`, `last`, a list of positions, {every: n}."""
    prompts: PositiveInt = 1
    """How many of each dataset, from the first."""
    datasets: list[Name] = Field(default=[])
    """Unset: all."""
    checkpoints: Literal["ends", "all"] = "ends"
    """The untrained and the last of each model, or all."""
