"""Section `tokenwise`: comparing the Jacobians of a prompt's tokens."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from blockcoupling.config.measurement import CompareTokens
from blockcoupling.config.places import Positions
from blockcoupling.config.section import Name, Unit


class Tokenwise(CompareTokens):
    """Which models, prompts and tokens are compared."""

    tokens: Positions = Field(default={"every": 4})
    """`all`, `last`, a list of positions, {every: n}."""
    prompts: Annotated[PositiveInt, Unit("prompts")] = 1
    """Number of prompts of each dataset, from the first."""
    datasets: list[Name] = Field(default=[])
    """Defaults to all."""
    checkpoints: Literal["ends", "all"] = "ends"
    """The untrained and the last checkpoint of each model, or all."""
