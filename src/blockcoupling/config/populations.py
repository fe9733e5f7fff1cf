"""Populations: one entry of `models` for many models trained here.

A `grid` is every combination of some values; a `design` is a number of points that fill a space
evenly. Each member becomes an ordinary trained model; its values are among its facts.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from math import ceil, floor, log2
from typing import Annotated, Any, get_args

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from blockcoupling.config.models import ARCHITECTURES, TrainedModel, Training
from blockcoupling.config.section import Section, Unit, sentence
from blockcoupling.config.yaml_file import meant
from blockcoupling.wording import did_you_mean

MARKS = ("grid", "design")
"""Keys that make a model's entry a population."""
FACTORS = "factors"
"""The fact of a member that holds its values, by key of `train`."""
POPULATION = "population"
"""The fact of a member that names its population."""
SCHEDULE = "schedule"
"""The fact of a member that says how its learning rate goes on after the warm-up."""
DIGITS = 3
"""Significant digits of a value drawn from a range: exact in a table, and on any machine."""

Scalar = bool | int | float | str | None


class Range(Section):
    """Values of a key in a design: between two values, or one of several."""

    low: Annotated[float | None, Unit("the key's")] = None
    """The smallest value."""
    high: Annotated[float | None, Unit("the key's")] = None
    """The largest value."""
    log: bool = False
    """Evenly in the logarithm."""
    choices: list[Any] = Field(default=[], examples=[[0, 0.1, 0.2]])
    """Values instead of a range; a plain list is the same."""

    @model_validator(mode="before")
    @classmethod
    def _list_of_choices(cls, data: Any) -> Any:
        return {"choices": meant(data)} if isinstance(data, list) else data

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "Range":
        ends = [end for end in (self.low, self.high) if end is not None]
        if len(ends) != (0 if self.choices else 2):
            raise ValueError("give either low and high, or a list of choices")
        if ends and ends[0] >= ends[1]:
            raise ValueError(f"low {ends[0]:g} is not below high {ends[1]:g}")
        if ends and self.log and ends[0] <= 0:
            raise ValueError(f"low {ends[0]:g} has no logarithm; choose one above 0")
        if self.log and not ends:
            raise ValueError("log needs low and high, not choices")
        _plain(self.choices)
        return self

    def value(self, share: float, whole: bool, unit: int = 1) -> Scalar:
        """The value at a share in [0, 1) of the way.

        Args:
            share: Position in the range.
            whole: Whether the key takes whole numbers.
            unit: Whole numbers are multiples of it.

        Raises:
            ValueError: No multiple is in the range, or among the choices.
        """
        if self.choices:
            fitting = [v for v in self.choices if not (whole and isinstance(v, int) and v % unit)]
            if not fitting:
                raise ValueError(f"none of {self.choices} is a multiple of {unit}")
            return fitting[floor(share * len(fitting))]
        assert self.low is not None
        assert self.high is not None
        if not whole:
            return float(f"{self._between(self.low, self.high, share):.{DIGITS}g}")
        first, last = ceil(self.low / unit), floor(self.high / unit)
        if first > last:
            raise ValueError(f"no multiple of {unit} is between {self.low:g} and {self.high:g}")
        # Each whole number has the room around it, so that the ends are as likely as the others.
        return unit * min(last, floor(self._between(first - 0.5, last + 0.5, share) + 0.5))

    def _between(self, low: float, high: float, share: float) -> float:
        if self.log:
            return float(low * (high / low) ** share)
        return low + (high - low) * share


class Design(Section):
    """Points that fill a space evenly: a scrambled Sobol sequence.

    Of a sequence the first points stay what they are when more are asked for.
    """

    points: Annotated[PositiveInt, Unit("members")]
    """How many members."""
    seed: NonNegativeInt = 0
    """Seed of the scrambling."""
    over: dict[str, Range] = Field(min_length=1)
    """Range by key of `train`."""

    def shares(self) -> list[list[float]]:
        """Position of every point in each range, in [0, 1)."""
        from scipy.stats import qmc  # takes a second to import: only where a design is

        sequence = qmc.Sobol(len(self.over), scramble=True, rng=self.seed)
        points: list[list[float]] = sequence.random_base2(ceil(log2(self.points))).tolist()
        return points[: self.points]


class Population(Section):
    """What makes a model's entry a population; all other keys are those of its members."""

    grid: dict[str, list[Any]] | None = None
    """Values by key of `train`: a member for every combination."""
    design: Design | None = None
    together: Annotated[PositiveInt, Unit("members")] = 1
    """Members whose small jobs share a process."""

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "Population":
        if (self.grid is None) == (self.design is None):
            raise ValueError("grid: give either a grid or a design")
        if self.grid is not None and not (self.grid and all(self.grid.values())):
            raise ValueError("grid: give each key a list of values")
        for key, values in (self.grid or {}).items():
            _plain(values, f"grid.{key}: ")
            if len(set(map(_word, values))) < len(values):
                raise ValueError(f"grid.{key}: a value is given twice")
        return self

    def members(self, name: str, common: Mapping[str, Any]) -> dict[str, dict[str, Scalar]]:
        """The values of every member, by key of `train`, under the members' names.

        Those of a design are numbered, those of a grid named after their values, so that more of
        them rename none.

        Args:
            name: Name of the population.
            common: The keys of `train` that all members share.

        Raises:
            ValueError: a range has no value that fits.
        """
        if self.grid is not None:
            found = {}
            for values in product(*self.grid.values()):
                factors = dict(zip(self.grid, values, strict=True))
                words = [f"{key.split('.')[-1]}{_word(v)}" for key, v in factors.items()]
                found["-".join([name, *words])] = factors
            return found
        assert self.design is not None
        return {
            f"{name}-{number:03d}": self._point(self.design, shares, common)
            for number, shares in enumerate(self.design.shares())
        }

    @staticmethod
    def _point(design: Design, shares: list[float], common: Mapping[str, Any]) -> dict[str, Scalar]:
        along = dict(zip(design.over, shares, strict=True))
        # What others depend on comes first: a width is a multiple of 8 for each head.
        order = sorted(along, key=lambda key: key != "heads")
        chosen: dict[str, Any] = {}
        kind = ARCHITECTURES.kind(common)
        for key in order:
            heads = chosen.get("heads", common.get("heads", kind.model_fields["heads"].default))
            rotated = 8 if kind is Training else 1  # of each head a quarter, in pairs
            unit = rotated * heads if key == "hidden_size" else 1
            try:
                chosen[key] = design.over[key].value(along[key], _is_whole(kind, key), unit)
            except ValueError as error:
                raise ValueError(f"design.over.{key}: {error}") from None
        return {key: chosen[key] for key in along}


def with_populations(study: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A study's configuration with the members of its populations among the models.

    Returns:
        The configuration, and a sentence for each mistake in a population; one that has any is left
        out.
    """
    data, models = dict(study), study.get("models")
    if not isinstance(models, Mapping):
        return data, []
    written: dict[str, Any] = {}
    found: list[str] = []
    for name, section in models.items():
        if not (isinstance(section, Mapping) and any(key in section for key in MARKS)):
            written[str(name)] = section
            continue
        members, problems = _members(str(name), section)
        twice = [member for member in members if member in models or member in written]
        if twice:
            problems.append(f"models.{name}: its member {twice[0]} is also another model's name")
        found += problems
        written |= {} if problems else members
    return data | {"models": written}, found


def _members(name: str, section: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The sections of a population's members, and what is wrong with it."""
    own = {key: section[key] for key in section if str(key) in Population.model_fields}
    shared = {str(key): section[key] for key in section if key not in own}
    common = meant(shared.pop("train", {}))
    where = f"models.{name}"
    if not isinstance(common, Mapping):
        return {}, [f"{where}.train: should be a mapping"]
    try:
        population = Population.model_validate(own)
    except ValidationError as error:
        return {}, [f"{where}.{sentence(line)}" for line in error.errors()]
    keys = list(population.grid or population.design.over)  # type: ignore[union-attr]
    try:
        ARCHITECTURES.kind(common)
    except ValueError as error:
        return {}, [f"{where}.train: {error}"]
    if problems := _problems_of_keys(keys, common):
        return {}, [f"{where}.{'grid' if population.grid else 'design.over'}.{p}" for p in problems]
    try:
        chosen = population.members(name, common)
    except ValueError as error:
        return {}, [f"{where}.{error}"]
    members, wrong = {}, {}
    for member, factors in chosen.items():
        facts = {**(shared.get("facts") or {}), POPULATION: name, FACTORS: factors}
        members[member] = {
            **shared,
            "source": "train",
            "train": _set(common, factors),
            "facts": facts,
            "population": name,
            "together": population.together,
        }
        try:
            facts[SCHEDULE] = TrainedModel.model_validate(members[member]).train.schedule
        except ValidationError as error:
            wrong[member] = [sentence(line) for line in error.errors()]
    return members, _once(where, wrong, len(members))


def _once(where: str, wrong: Mapping[str, Iterable[str]], members: int) -> list[str]:
    """The mistakes of members: each once, with the members that have it."""
    whose: dict[str, list[str]] = {}
    for member, sentences in wrong.items():
        for each in sentences:
            whose.setdefault(each, []).append(member)
    lines = []
    for each, names in whose.items():
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"{where}.{each}" + ("" if len(names) == members else f" (members {some})"))
    return lines


def _problems_of_keys(keys: Iterable[str], common: Mapping[str, Any]) -> list[str]:
    found = []
    whole = ARCHITECTURES.kind(common)
    for key in keys:
        kind: type[Section] | None = whole
        value: Any = common
        for part in key.split("."):
            if kind is None or part not in kind.model_fields:
                known = whole.model_fields if kind is None else kind.model_fields
                found.append(f"{key}: unknown key of train{did_you_mean(part, known)}")
                break
            kind = _section(kind, part)
            value = value.get(part) if isinstance(value, Mapping) else None
        else:
            if value is not None:
                found.append(f"{key}: is set in train, too; remove one of them")
    return found


def _parts(kind: type[Section], name: str) -> tuple[Any, ...]:
    annotation = kind.model_fields[name].annotation
    return get_args(annotation) or (annotation,)


def _section(kind: type[Section], name: str) -> type[Section] | None:
    parts = _parts(kind, name)
    return next((p for p in parts if isinstance(p, type) and issubclass(p, Section)), None)


def _is_whole(whole: type[Section], key: str) -> bool:
    kind: type[Section] | None = whole
    *above, last = key.split(".")
    for part in above:
        kind = None if kind is None else _section(kind, part)
    return kind is not None and int in _parts(kind, last)


def _set(common: Mapping[str, Any], factors: Mapping[str, Scalar]) -> dict[str, Any]:
    """The keys of `train` of a member: those that all share, and its own."""
    merged = {**common}
    for key, value in factors.items():
        *above, last = key.split(".")
        place = merged
        for part in above:
            place[part] = {**(place.get(part) or {})}
            place = place[part]
        place[last] = value
    return merged


def _plain(values: Iterable[Any], where: str = "") -> None:
    for value in values:
        if not isinstance(value, bool | int | float | str | None):
            raise ValueError(
                f"{where}a value is a number or a word, not {value!r}; a key within a section is "
                "written with a dot"
            )


def _word(value: Scalar) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
