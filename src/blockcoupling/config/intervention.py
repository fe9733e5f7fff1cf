"""Which populations of a study are the arms of an experiment, and which difference would matter."""

from pydantic import Field, PositiveFloat

from blockcoupling.config.section import Name, Section


class Intervention(Section):
    """Populations that differ in what was done to their training, seed by seed.

    An arm is a population, or the members of one that were given the same values. Its members are
    paired with those of the control that have the same values of everything that the control's
    were given (its seeds, say, and its depths).
    """

    control: Name
    """The population that was left alone."""
    doses: list[Name] = Field(default=[])
    """Populations whose coupling was set, over which the slope is taken; unset: those whose
    `train.penalty.kind` is coupling, but for the control."""
    shams: list[Name] = Field(default=[])
    """Populations that got what is done to the doses, coupling left out: each dose is held against
    them, too."""
    smallest_effect: dict[str, PositiveFloat] = Field(default={})
    """The smallest difference that would matter, by outcome: `SCORE.METRIC`, or `damage.TREATMENT`
    in powers of ten. Those that have one are tested for equivalence, too."""
    outcomes: list[str] = Field(default=[])
    """Prespecified outcomes, over which p-values are adjusted. Unset: those with a smallest effect,
    or else all but coupling."""
