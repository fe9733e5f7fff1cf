"""Which blocks are ablated or exchanged, and how."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from blockcoupling.config.measurement import Knobs, Loading
from blockcoupling.config.places import DamagedPairs, numbered
from blockcoupling.config.section import Name, Unit

TreatmentName = Literal["skip", "exit", "replace", "swap", "merge", "displace", "displace_random"]
Changed = Literal["both", "first", "second"]
"""Which of blocks i and j a treatment changes."""


class Treatment(NamedTuple):
    """What is done to blocks i and j, and what a result belongs to."""

    done: str
    single: bool = False
    """Whether it is also, or only, done to one block (i = j)."""
    pairs: bool = True
    changed: Changed = "both"

    @property
    def ordered(self) -> bool:
        """Whether (i, j) and (j, i) differ."""
        return self.changed != "both"


TREATMENTS: Mapping[TreatmentName, Treatment] = {
    "skip": Treatment("blocks i and j are ablated (i = j: block i alone)", single=True),
    "exit": Treatment("all blocks after block i are ablated", single=True, pairs=False),
    "replace": Treatment("block i's weights are used in place of block j's, too", changed="second"),
    "swap": Treatment("the weights of blocks i and j are exchanged"),
    "merge": Treatment("both places use the mean of their weights"),
    "displace": Treatment(
        "the input of block i is moved along the first right singular vector of block j",
        single=True,
        changed="first",
    ),
    "displace_random": Treatment(
        "the input of block i is moved in a random direction", single=True, pairs=False
    ),
}
"""What can be done to a model's blocks (i and j are numbers of blocks, from 1)."""

ALL_TREATMENTS: tuple[TreatmentName, ...] = cast(Any, get_args(TreatmentName))
DISPLACEMENTS = ("displace", "displace_random")
"""Treatments that move a state and leave the blocks as they are."""


class DamageSettings(Knobs):
    """What is done to the blocks of a model, and on how much text the damage is measured."""

    treatments: list[TreatmentName] = Field(
        default=[name for name in ALL_TREATMENTS if name not in DISPLACEMENTS], min_length=1
    )
    """Out of skip, exit, replace, swap, merge (default: these), displace, displace_random."""
    pairs: DamagedPairs = Field(default={"within": 4})
    """`all`, {"within": n} (at most n blocks apart), or a list of pairs of blocks."""
    passages: Annotated[NonNegativeInt, Unit("passages")] = 8
    """Passages of the built-in held-out text whose loss is measured, too."""
    window: Annotated[PositiveInt, Unit("tokens")] = 512
    """Tokens of a passage, at most."""
    answers: bool = False
    """Also measure how well the changed model answers the questions of a dataset with choices."""
    push: Annotated[PositiveFloat, Unit("share of the state's norm")] = 0.01
    """Length of a displacement, as a share of the length of the state that is moved."""


class CauseDamage(Loading, DamageSettings):
    """One job's settings of causing damage."""

    batch: Annotated[PositiveInt | None, Unit("texts", 4)] = None
    """Texts per batch; default: as many as fit, at most 8."""
    stream: bool = False
    """Load one block's weights at a time: for models larger than memory."""

    @property
    def settings(self) -> DamageSettings:
        """What is done, without how the model is loaded."""
        return DamageSettings(**self.only(DamageSettings))


class Damage(CauseDamage):
    """Whether blocks are ablated and exchanged, and on which models and datasets."""

    prompts: Annotated[PositiveInt, Unit("prompts")] = 10
    """Number of prompts of each dataset, from the first."""
    datasets: list[Name] = Field(default=[])
    """Default: all."""
    checkpoints: Literal["ends", "all"] = "ends"
    """The untrained and the last checkpoint of each model, or all."""
    k: Annotated[list[PositiveInt], Unit("singular triples")] = Field(examples=[[10]], default=[])
    """K of the mis-couplings to correlate with damage; unset, all that are tabulated."""


class Change(NamedTuple):
    """One treatment of two blocks, or of one (`block_other` = `block`); numbers from 1."""

    treatment: TreatmentName
    block: int
    block_other: int


def changes(settings: DamageSettings, blocks: int) -> list[Change]:
    """All changes of a model with `blocks` blocks, in a fixed order.

    Raises:
        UserError: a pair names a block that the model does not have.
    """
    pairs = numbered(settings.pairs, blocks)
    return [
        Change(name, i, j)
        for name in ALL_TREATMENTS
        if name in settings.treatments
        for i, j in _places(TREATMENTS[name], pairs, blocks)
        if (name, i) != ("exit", blocks)  # nothing would be left out
    ]


def _places(
    treatment: Treatment, pairs: list[tuple[int, int]], blocks: int
) -> Iterator[tuple[int, int]]:
    if treatment.single:
        yield from ((i, i) for i in range(1, blocks + 1))
    if treatment.pairs:
        for i, j in pairs:
            yield i, j
            if treatment.ordered:
                yield j, i
