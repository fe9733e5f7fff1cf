"""The sections of what is done: extract, reduce, score, correlate, figures."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from blockcoupling.config.datasets import Template
from blockcoupling.config.presets import PresetName, with_preset
from blockcoupling.config.section import Name, Section, UserPath
from blockcoupling.config.variants import DEFAULT_VARIANT, VARIANTS, VariantName
from blockcoupling.errors import UserError

DEFAULT_K = 50


def _tokens(value: Any) -> Any:
    match value:
        case "last" | "all":
            return value
        case [_, *_] if all(_is_token(t) or _is_pair(t) for t in value):
            return value
        case {"every": int(n), **rest} if n > 0 and not rest:
            return value
    raise ValueError(
        "should be last, all, {every: n}, or a list of tokens t or pairs [t1, t2]; negative ones "
        "count from the end"
    )


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_token, value))


class Extract(Section):
    """Which Jacobians are taken and how their singular vectors are found."""

    k: PositiveInt | None = None
    """Singular triples kept; unset, 50, or the model's dimension where that is smaller."""
    k_when_smaller: Literal["error", "d"] = "error"
    """What to do where `k` is larger than the dimension d: refuse, or take d."""
    tokens: Annotated[Any, PlainValidator(_tokens)] = "last"
    dtype: Literal["float32", "float64"] = "float32"
    method: Literal["auto", "dense", "krylov"] = "auto"
    tolerance: PositiveFloat = 1.0e-4
    matmul: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Precision of the blocks' matrix products; a lower one's error is measured and kept."""
    context: Literal["auto", "decode", "full"] = "auto"
    """One token's decode step, or the whole prompt's pass where a model cannot decode."""
    full: bool = False
    """Also keep all singular values, of blocks whose Jacobian is computed whole."""
    final_norm: bool = False
    """Measure the last block after the model's final norm, as the released code does."""
    preset: PresetName | None = None
    """`released`: all of this as the released code has it."""
    vectors: bool = False
    device: str = "auto"
    batch: PositiveInt | None = None
    """Prompts measured together; unset, as many as half of the free memory holds, at most 16."""
    stream: bool = False
    """Read a block's weights when they are needed: for models larger than memory."""

    @model_validator(mode="after")
    def _as_preset(self) -> "Extract":
        if self.preset is not None:
            default = {name: field.default for name, field in type(self).model_fields.items()}
            given = {name: getattr(self, name) for name in default}
            try:
                settled = with_preset(self.preset, given, default)
            except UserError as error:
                raise ValueError(" ".join(str(error).splitlines())) from None
            for name in default:
                if settled[name] != given[name]:
                    setattr(self, name, settled[name])
        return self

    def k_for(self, dimension: int) -> int:
        """K_max for a model of this dimension; a `k` that is too large stays as it is."""
        if self.k is None:
            return min(DEFAULT_K, dimension)
        return min(self.k, dimension) if self.k_when_smaller == "d" else self.k


class Reduce(Section):
    """Which K and which variants are tabulated."""

    k: list[PositiveInt] = Field(default=[])
    """Unset: those of 1, 2, 5, 10, 20, 30, 50 that are at most K_max."""
    variants: list[VariantName] = Field(default=list(VARIANTS), min_length=1)


def _positions(value: Any) -> Any:
    value = _tokens(value)
    if isinstance(value, list) and any(isinstance(each, list) for each in value):
        raise ValueError("should be positions of tokens, not pairs: all of them are paired")
    return value


def _block_pairs(value: Any) -> Any:
    def is_block(each: Any) -> bool:
        whole = isinstance(each, int) and not isinstance(each, bool) and each != 0
        return whole or (isinstance(each, float) and 0 < each < 1)

    match value:
        case [_, *_] if all(
            isinstance(pair, list) and len(pair) == 2 and all(map(is_block, pair)) for pair in value
        ):
            return value
    raise ValueError(
        "should be a list of pairs of blocks, such as [[1, 4], [0.5, 0.75]]: numbers from 1, "
        "negative ones from the end, or fractions of the depth"
    )


class Tokenwise(Section):
    """Which Jacobians are compared between tokens; the cost grows with the cube of their number."""

    tokens: Annotated[Any, PlainValidator(_positions)] = Field(default={"every": 4})
    blocks: Annotated[Any, PlainValidator(_block_pairs)] = Field(default=[[0.5, 0.5], [0.5, 0.75]])
    prompts: PositiveInt = 1
    """How many of each dataset, from the first."""
    k: PositiveInt = 10
    datasets: list[Name] = Field(default=[])
    """Unset: all."""
    checkpoints: Literal["ends", "all"] = "ends"
    """The untrained and the last of each model, or all."""


class HarnessTask(Section):
    """A task of lm-evaluation-harness: its own, or multiple choice over a local JSONL file."""

    task: str | None = None
    """The harness's name for it; unset, the name it has here."""
    path: UserPath | None = None
    template: Template | None = None
    few_shot: NonNegativeInt = 0
    limit: PositiveInt | None = None
    """Questions to sample; unset, all."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _local_or_not(self) -> "HarnessTask":
        if (self.path is None) != (self.template is None):
            raise ValueError("path and template go together: a local file needs to know its form")
        return self


class Score(Section):
    """How well models do: evaluated here, or recorded in their sections."""

    name: Name = "heldout"
    """The score that coupling is held against."""
    metric: Name | None = None
    heldout: bool = True
    """Evaluate loss and next-token accuracy on the built-in held-out text."""
    harness: dict[Name, HarnessTask] = Field(default={})


class Correlate(Section):
    """What is held against the score."""

    k: PositiveInt | None = None
    """Unset: 10, or the largest tabulated K below it."""
    variant: VariantName = DEFAULT_VARIANT
    bootstrap: PositiveInt = 2000
    checkpoints: Literal["all", "final"] = "all"
    seed: NonNegativeInt | None = None
    """Seed of the bootstrap; unset, the study's."""


class Figures(Section):
    """How figures are written."""

    formats: list[Literal["pdf", "png", "svg"]] = Field(default=["pdf", "png"], min_length=1)
