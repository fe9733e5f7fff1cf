"""The settings of a measurement, each of them defined once, here.

A field is a key of a study's configuration, an argument of `bc.measure`, an option of the command
line and a flag of the workflow's rules; the sentence below it is its help text.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from blockcoupling.config.choices import DEFAULT_K, Context, Matmul, Method, Part, Precision
from blockcoupling.config.places import BlockPairs, Positions, Tokens, is_whole
from blockcoupling.config.presets import PRESETS, PresetName, with_preset
from blockcoupling.config.section import Section, Unit, complaint
from blockcoupling.config.variants import products
from blockcoupling.errors import UserError


class Knobs(Section):
    """Immutable settings, validated when they are created."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Validate settings given by name.

        Raises:
            UserError: A sentence for each that is wrong.
        """
        settings, wrong = cls.read(given)
        if wrong:
            raise UserError("\n".join(wrong))
        return settings

    @classmethod
    def read(
        cls, given: Mapping[str, Any], also_known: Iterable[str] = ()
    ) -> tuple[Self, list[str]]:
        """Settings given by name as far as they are right, and a sentence for each that is wrong.

        Args:
            given: The settings.
            also_known: Other names that may have been meant by one that is unknown.
        """
        plain = {name: int(value) if is_whole(value) else value for name, value in given.items()}
        try:
            return cls.model_validate(plain), []
        except ValidationError as error:
            lines = error.errors()
        known = {*cls.model_fields, *also_known}
        wrong = {line["loc"][0] for line in lines if line["loc"]} or set(plain)
        right, _ = cls.read({name: plain[name] for name in plain if name not in wrong})
        return right, [complaint(line, cls.defaults(), known) for line in lines]

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The default of each setting."""
        return cls().only(cls)

    def only(self, kind: type["Knobs"]) -> dict[str, Any]:
        """Those of the settings that `kind` has, by name."""
        return {name: getattr(self, name) for name in kind.model_fields}


class Solving(Knobs):
    """How exactly singular triples are found, and what is kept for mis-coupling."""

    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False), Unit("share of s_1")] = 1.0e-4
    """Residual ‖J v − s u‖ / s_1 at which an SVD may stop."""
    seed: NonNegativeInt = 0
    """Seed of the Krylov start vectors; defaults to the study's seed."""
    swapped: bool = False
    """Also keep V_jᵀ J_i U_j; a study does if a variant needs it."""


class Loading(Knobs):
    """How a model is loaded."""

    dtype: Precision = "float32"
    """Precision of weights and products."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, …: torch's name of a device."""


class Settings(Solving):
    """What is measured: which Jacobians, and how their singular vectors are found."""

    k: Annotated[PositiveInt | None, Unit("singular triples")] = None
    """Singular triples kept (K_max); default: 50, or the model's dimension if smaller."""
    tokens: Tokens = "last"
    """`last`, `all`, a list of tokens t or pairs [t1, t2], or {"every": n}; negative tokens count
    from the end; for images also `class`, and `mean` over the patches."""
    stage: Annotated[PositiveInt | None, Unit("stages, from 1", 2)] = None
    """Stage to measure (1 …) in a hierarchical image model, whose width changes."""
    method: Method = "auto"
    """Singular triples from the whole Jacobian (dense), or from products with it (krylov)."""
    matmul: Matmul = "float32"
    """Precision of the blocks' matrix products; the error of a lower one is measured and stored."""
    context: Context = "auto"
    """One token's decode step, or the full forward pass; `auto`: the latter if a model cannot
    decode."""
    full: bool = False
    """Also keep all singular values of blocks whose full Jacobian is computed."""
    final_norm: bool = False
    """Include the model's final norm in the last block, as the released code does."""
    vectors: bool = False
    """Also keep the singular vectors U and V."""
    overlaps: bool = False
    """Also keep U_iᵀ U_j, V_iᵀ V_j and V_iᵀ U_j of all blocks: three times the size of A."""
    parts: list[Part] = Field(default=["block"], examples=[["block", "attention", "mlp"]])
    """Also measure a block's halves: a list of block, attention and mlp."""
    detached: bool = False
    """Also measure J with norm statistics, attention weights and gates held constant."""
    eigenvalues: bool = False
    """Also keep all eigenvalues of J, which takes whole Jacobians."""
    cumulative: bool = False
    """Also keep the top triples of the product of all I + J up to a block, and their overlaps with
    each block's; it takes whole Jacobians."""
    readout: Annotated[NonNegativeInt | None, Unit("tokens a direction", 5)] = None
    """Top tokens kept of each singular direction, read out by the model's own head; default: 5
    where that is cheap, otherwise none."""

    @property
    def other_parts(self) -> tuple[str, ...]:
        """What is measured in addition to the block itself: some of `choices.PARTS`."""
        halves = [part for part in ("attention", "mlp") if part in self.parts]
        return (*halves, *(["detached"] if self.detached else []))

    @property
    def whole_jacobians(self) -> bool:
        """Whether something is asked for that takes every whole Jacobian."""
        return self.full or self.eigenvalues or self.cumulative

    @model_validator(mode="after")
    def _of_the_block_itself(self) -> Self:
        if self.final_norm and self.other_parts:
            raise ValueError(
                "parts and detached are of the block itself: leave final_norm (and the preset "
                "released, which sets it) out"
            )
        return self

    def k_for(self, dimension: int) -> int:
        """K_max for a model of this dimension; a `k` that is too large stays as it is."""
        return min(DEFAULT_K, dimension) if self.k is None else self.k


class Asked(Settings):
    """Settings as they are requested: one by one, or by a preset."""

    preset: PresetName | None = None
    """A group of settings; `released`: those of the released code."""

    @model_validator(mode="before")
    @classmethod
    def _as_preset(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("preset") in PRESETS:
            try:
                return with_preset(data["preset"], data, cls.defaults())
            except UserError as error:
                raise ValueError("; ".join(str(error).splitlines())) from None
        return data

    @property
    def settings(self) -> Settings:
        """What is measured, without the preset."""
        return Settings(**self.only(Settings))


class Extract(Loading, Asked):
    """Which Jacobians are taken and how their singular vectors are found: one job's settings."""

    k_when_smaller: Literal["error", "d"] = "error"
    """What to do if `k` is larger than the dimension d of a model: refuse, or use d."""
    batch: Annotated[PositiveInt | None, Unit("prompts", 8)] = None
    """Prompts per batch; default: 16, or as many as take 8 GiB."""
    stream: bool = False
    """Load one block's weights at a time: for models larger than memory."""

    def k_for(self, dimension: int) -> int:
        """K_max for a model of this dimension; a `k` that is too large stays where it may not."""
        k = super().k_for(dimension)
        return min(k, dimension) if self.k_when_smaller == "d" else k

    @property
    def job(self) -> dict[str, Any]:
        """Settings of the job, which do not affect the numbers, by name."""
        return {n: getattr(self, n) for n in type(self).model_fields if n not in Asked.model_fields}


class TokenSettings(Solving):
    """Which Jacobians are compared between tokens; the cost grows with the cube of their number."""

    tokens: Positions = "all"
    """`last`, `all`, a list of positions (negative ones count from the end), or {"every": n}."""
    blocks: BlockPairs = Field(default=[[0.5, 0.5], [0.5, 0.75]])
    """Pairs of blocks: numbers from 1, negative ones from the end, or fractions of the depth."""
    k: Annotated[PositiveInt, Unit("singular triples")] = 10
    """Singular triples kept."""


class CompareTokens(Loading, TokenSettings):
    """One job's settings of comparing tokens."""

    @property
    def settings(self) -> TokenSettings:
        """What is compared, without how the model is loaded."""
        return TokenSettings(**self.only(TokenSettings))


def kept_for(variants: Iterable[str]) -> dict[str, Any]:
    """The settings that keep what variants of mis-coupling need in addition to A."""
    needed = products(variants)
    halves = [part for part in ("attention", "mlp") if f"A_{part}" in needed]
    return {
        "swapped": "A_swapped" in needed,
        "parts": ["block", *halves],
        "detached": "A_detached" in needed,
    }
