"""The settings of a measurement, each of them defined once, here.

A field is a key of a study's configuration, an argument of `bc.measure`, an option of the command
line and a flag of the workflow's rules; the sentence below it is its help. What it does, the
instrument that reads it says.
"""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from blockcoupling.config.choices import DEFAULT_K, Context, Matmul, Method, Precision
from blockcoupling.config.places import BlockPairs, Positions, Tokens
from blockcoupling.config.presets import PRESETS, PresetName, with_preset
from blockcoupling.config.section import Section, complaint
from blockcoupling.config.variants import products
from blockcoupling.errors import UserError


class Knobs(Section):
    """Settings that are validated when they are made, and stay as they are."""

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
        plain = {name: int(value) if _whole(value) else value for name, value in given.items()}
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
        """What each setting is when nobody asks for anything."""
        return cls().only(cls)

    def only(self, kind: type["Knobs"]) -> dict[str, Any]:
        """Those of the settings that `kind` has, by name."""
        return {name: getattr(self, name) for name in kind.model_fields}


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


class Solving(Knobs):
    """How exactly singular triples are found, and what is kept for mis-coupling."""

    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0e-4
    """Residual ‖J v − s u‖ / s_1 at which an SVD may stop."""
    seed: NonNegativeInt = 0
    """Of the random start of the iteration; in a study that names none, the study's."""
    swapped: bool = False
    """Also keep V_jᵀ J_i U_j; a study does where a variant needs it."""


class Loading(Knobs):
    """How a model comes into memory."""

    dtype: Precision = "float32"
    """Precision of weights and products."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, …: torch's name of a device."""


class Settings(Solving):
    """What is measured: which Jacobians, and how their singular vectors are found."""

    k: PositiveInt | None = None
    """Singular triples kept (K_max); unset, 50, or a model's dimension where that is smaller."""
    tokens: Tokens = "last"
    """`last`, `all`, a list of tokens t or pairs [t1, t2], or {"every": n}; negative tokens count
    from the end; of images also `class`, and `mean` over the patches."""
    stage: PositiveInt | None = None
    """Of a hierarchical image model, whose width changes, the stage to measure (1 …)."""
    method: Method = "auto"
    """Singular triples from the whole Jacobian (dense), or from products with it (krylov)."""
    matmul: Matmul = "float32"
    """Precision of the blocks' matrix products; a lower one's error is measured and kept."""
    context: Context = "auto"
    """One token's decode step, or the whole prompt's pass; `auto`: the latter where a model cannot
    decode."""
    full: bool = False
    """Also keep all singular values, of blocks whose Jacobian is computed whole."""
    final_norm: bool = False
    """Measure the last block after the model's final norm, as the released code does."""
    vectors: bool = False
    """Also keep the singular vectors U and V."""
    overlaps: bool = False
    """Also keep U_iᵀ U_j, V_iᵀ V_j and V_iᵀ U_j of all blocks: three times the size of A."""

    def k_for(self, dimension: int) -> int:
        """K_max for a model of this dimension; a `k` that is too large stays as it is."""
        return min(DEFAULT_K, dimension) if self.k is None else self.k


class Asked(Settings):
    """Settings as one asks for them: each by itself, or those that a preset settles."""

    preset: PresetName | None = None
    """Settings that belong together; `released`: all of this as the released code has it."""

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
        """What is measured, whoever asked for it."""
        return Settings(**self.only(Settings))


class Extract(Loading, Asked):
    """Which Jacobians are taken and how their singular vectors are found: one job's settings."""

    k_when_smaller: Literal["error", "d"] = "error"
    """What to do where `k` is larger than the dimension d of a model: refuse, or take d."""
    batch: PositiveInt | None = None
    """Prompts per batch; default: 16, or as many as take 8 GiB."""
    stream: bool = False
    """Read a block's weights when they are needed: for models larger than memory."""

    def k_for(self, dimension: int) -> int:
        """K_max for a model of this dimension; a `k` that is too large stays where it may not."""
        k = super().k_for(dimension)
        return min(k, dimension) if self.k_when_smaller == "d" else k

    @property
    def job(self) -> dict[str, Any]:
        """What concerns the job and not the numbers, by name."""
        return {n: getattr(self, n) for n in type(self).model_fields if n not in Asked.model_fields}


class TokenSettings(Solving):
    """Which Jacobians are compared between tokens; the cost grows with the cube of their number."""

    tokens: Positions = "all"
    """`last`, `all`, a list of positions (negative ones count from the end), or {"every": n}."""
    blocks: BlockPairs = Field(default=[[0.5, 0.5], [0.5, 0.75]])
    """Pairs of blocks: numbers from 1, negative ones from the end, or fractions of the depth."""
    k: PositiveInt = 10
    """Singular triples kept."""


class CompareTokens(Loading, TokenSettings):
    """One job's settings of comparing tokens."""

    @property
    def settings(self) -> TokenSettings:
        """What is compared, wherever the model is."""
        return TokenSettings(**self.only(TokenSettings))


def kept_for(variants: Iterable[str]) -> dict[str, bool]:
    """The settings that keep what variants of mis-coupling need beside A."""
    return {"swapped": "A_swapped" in products(variants)}
