"""Section `intervention`: the arms of an experiment, and the smallest relevant differences."""

from typing import Annotated

from pydantic import Field, PositiveFloat

from blockcoupling.config.section import Name, Section, Unit


class Intervention(Section):
    """Populations that differ in what was done to their training, seed by seed.

    An arm is a population, or the members of one that share the same values. Its members are paired
    with those of the control that have the same values of everything that varies in the control
    (its seeds, say, and its depths).
    """

    control: Name
    """The population without an intervention."""
    doses: list[Name] = Field(examples=[["couple"]], default=[])
    """Populations whose coupling was set, over which the slope is fitted; default: those whose
    `train.penalty.kind` is coupling, except the control."""
    shams: list[Name] = Field(default=[])
    """Populations with the same treatment as the doses except for coupling: each dose is also
    compared with them."""
    positive_controls: list[Name] = Field(default=[])
    """Populations with a treatment that is known to change the outcomes. A dose counts as
    equivalent to the control only where one of them differs from it in the same test."""
    training_loss: Annotated[PositiveFloat | None, Unit("the headline metric's")] = None
    """The training loss, in the headline metric, at which all members are compared. Unset: for
    each pair the highest of its members' final losses."""
    smallest_effect: Annotated[dict[str, PositiveFloat], Unit("the outcome's")] = Field(default={})
    """The smallest relevant difference by outcome: `SCORE.METRIC`, or `damage.TREATMENT` in powers
    of ten. These outcomes are also tested for equivalence."""
    outcomes: list[str] = Field(default=[])
    """Prespecified outcomes, over which p-values are adjusted. Unset: those with a smallest effect,
    or else all but coupling."""
