"""The sections of models: trained here, in local directories, on the hub."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from blockcoupling.config.choices import Modality
from blockcoupling.config.places import Tokens
from blockcoupling.config.section import Name, OneOf, Section, Unit, UserPath
from blockcoupling.config.vision import VisionTraining

INIT = "init"
"""Name of the pseudo-checkpoint that has a model's configuration and re-initialised weights."""


def step_of(checkpoint: str) -> int | None:
    """Training step, or epoch, in a checkpoint's name (`step1000`, `epoch30`), or None."""
    match = re.fullmatch(r"(?:step|epoch)(\d+)", checkpoint)
    return int(match[1]) if match else None


class RecordedScore(Section):
    """A score that was measured elsewhere, with its source."""

    value: Annotated[float, Unit("the metric's", 0.394)]
    """The score."""
    source: str = Field(min_length=1, examples=["https://arxiv.org/abs/2304.01373"])
    """Where it was published."""
    metric: Name = "score"
    """Name of the metric."""
    standard_error: Annotated[float | None, Unit("the metric's", 0.012)] = None
    """Its standard error, in the same unit."""
    higher_is_better: bool = True
    """Whether a larger score is a better one."""
    checkpoint: Annotated[Name | None, Field(examples=["step1000"])] = None
    """Its checkpoint; default: the last one of the model."""


class ModelSection(Section):
    """What every model's section can hold, wherever the model comes from."""

    family: str | None = None
    """Name of the models it belongs to, for statistics within families."""
    parameters: Annotated[PositiveInt | None, Unit("parameters", 70_426_624)] = None
    """Only if the count should differ from that of the weights."""
    tokens: Annotated[PositiveInt | None, Unit("tokens")] = None
    """Training tokens."""
    tokens_per_step: Annotated[PositiveInt | None, Unit("tokens per step")] = None
    """Training tokens per step, for checkpoints with a step in their name."""
    base: bool | None = None
    """True for a base model, false for a fine-tuned one."""
    facts: dict[str, Any] = Field(default={})
    """Anything else worth keeping with the measurements."""
    scores: dict[Name, RecordedScore] = Field(default={})
    published_as: Annotated[str | None, Field(examples=["meta-llama/Llama-2-7b-hf"])] = None
    """Its name in `score.published`, if that is neither its hub id nor its name here."""

    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    """Type of the weights as they are rounded; products are in `extract.dtype`."""
    quantization: Literal["nf4", "nf4-double", "int8"] | None = None
    """Round the weights to this format of bitsandbytes before measuring."""
    init: bool = False
    """Also measure the pseudo-checkpoint `init`: same configuration, re-initialised weights."""
    init_seed: NonNegativeInt = 0
    """Seed of the weights where they are randomly re-initialised."""
    measured_at: Annotated[Tokens | None, Field(examples=["all"])] = None
    """Tokens to measure, if not those of `extract.tokens`; default for image models: `class`."""

    @property
    def takes(self) -> Modality:
        """What the model takes."""
        return "text"

    def trained_checkpoints(self) -> dict[str, Any]:
        """Names of the checkpoints in order, `init` left out, with where each is found."""
        raise NotImplementedError

    def where(self, checkpoint: str) -> dict[str, Any]:
        """What a model's record needs to know to find a checkpoint, as plain JSON."""
        raise NotImplementedError

    def published_names(self) -> dict[str, str | None]:
        """Names of the model in files of others; one of a single checkpoint, with which it is."""
        return {} if self.published_as is None else {self.published_as: None}

    def checkpoint_published(self, revision: str) -> str | None:
        """The checkpoint that a revision in such a file means; None if it is not measured."""
        found = self.trained_checkpoints()
        for name, place in found.items():
            if revision and revision in (name, str(place)):
                return name
        return list(found)[-1] if revision in ("", "main") else None

    def _place(self, checkpoint: str) -> Any:
        # Re-initialised weights have the configuration of the last checkpoint.
        places = self.trained_checkpoints()
        return places[list(places)[-1] if checkpoint == INIT else checkpoint]

    def _tokens(self, checkpoint: str) -> int | None:
        """Tokens that a checkpoint has seen; of an earlier one than the last, only by its step."""
        step = step_of(checkpoint)
        if checkpoint == INIT:
            return None
        if self.tokens_per_step is not None and step is not None:
            return self.tokens_per_step * step
        return self.tokens if checkpoint == self.names()[-1] else None

    def names(self) -> list[str]:
        """Names of all checkpoints, in order of training."""
        return [INIT] * self.init + list(self.trained_checkpoints())

    def spec(self, name: str, checkpoint: str) -> dict[str, Any]:
        """Everything a model's record needs to know, as plain JSON."""
        facts = {"family", "parameters", "tokens", "base", "facts"}
        fresh = checkpoint == INIT
        return {
            "name": name,
            "checkpoint": checkpoint,
            "step": step_of(checkpoint),
            "init_seed": self.init_seed if fresh else None,
            "dtype": self.dtype,
            # Trained weights are quantized; re-initialised ones are not.
            "quantization": None if fresh else self.quantization,
            **self.model_dump(mode="json", include=facts),
            "tokens": self._tokens(checkpoint),
            **({} if self.takes == "text" else {"modality": self.takes}),
            **self.where(checkpoint),
        }


class Penalty(Section):
    """A term added to the training loss, to set the coupling of the model."""

    kind: Literal["coupling", "sham", "norm"] = "coupling"
    """Squared mis-coupling; the same with random frames; the Jacobians' norm alone."""
    weight: Annotated[float, Unit("nats per token over squared mis-coupling")] = 0.0
    """The dose: above 0 it increases coupling, below 0 it decreases it, 0: no penalty."""
    k: Annotated[PositiveInt, Unit("singular triples")] = 10
    """Singular vectors that the penalty compares."""
    tokens: Annotated[PositiveInt, Unit("tokens per batch")] = 2
    """Number of tokens per batch, one in each of its first windows."""
    every: Annotated[PositiveInt, Unit("updates")] = 1
    """Applied at every n-th step."""
    distance: Annotated[PositiveInt, Unit("blocks")] = 1
    """Largest distance of the pairs of blocks, in both orders; 1: neighbours."""


class Training(Section):
    """A GPT-NeoX model and how it is trained; sizes in the usual units, `context` in bytes."""

    processes: ClassVar[int] = 1
    """Processes that share a batch, as in `VisionTraining`; not a setting here."""
    hidden_size: Annotated[PositiveInt, Unit("dimensions")] = 128
    """Width d of the residual stream."""
    blocks: Annotated[int, Unit("blocks")] = Field(default=6, ge=2)
    """Number of blocks."""
    heads: Annotated[PositiveInt, Unit("heads")] = 4
    """Attention heads per block."""
    context: Annotated[int, Unit("tokens (bytes)")] = Field(default=128, ge=16)
    """Tokens (bytes) per text."""
    batch: Annotated[PositiveInt, Unit("texts")] = 16
    """Texts per update."""
    steps: Annotated[PositiveInt, Unit("updates")] = 600
    """Updates of the whole training."""
    learning_rate: Annotated[PositiveFloat, Unit("per update")] = 1.0e-3
    """Largest learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """The learning rate after warm-up: a cosine to a tenth, or constant, so that models can be
    compared at the same loss, whatever their step."""
    weight_decay: Annotated[NonNegativeFloat, Unit("per update, over the learning rate")] = 0.1
    """AdamW's weight decay."""
    dropout: Annotated[float, Unit("probability")] = Field(default=0.0, ge=0, lt=1)
    """Dropout of attention weights and of the embeddings."""
    text: Annotated[float, Unit("share")] = Field(default=1.0, gt=0, le=1)
    """Share of the training text."""
    shuffled: Annotated[float, Unit("share")] = Field(default=0.0, ge=0, le=1)
    """Share of its passages whose characters are in random order: they can only be memorized."""
    seed: NonNegativeInt = 0
    """Seed of the weights and of everything that is drawn in training."""
    penalty: Penalty = Penalty()
    stochastic_depth: Annotated[float, Unit("probability")] = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping the last block's branches; proportionally less in earlier blocks."""
    tied: bool = False
    """All blocks have the same weights."""

    @model_validator(mode="after")
    def _fits(self) -> "Training":
        # A quarter of each head is rotated, in pairs.
        if self.hidden_size % (8 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of 8 x {self.heads} heads"
            )
        if self.penalty.k > self.hidden_size:
            raise ValueError(
                f"penalty.k = {self.penalty.k} is larger than hidden_size = {self.hidden_size}"
            )
        if self.penalty.tokens > self.batch:
            raise ValueError(
                f"penalty.tokens = {self.penalty.tokens} is larger than batch = {self.batch}"
            )
        return self


ARCHITECTURES = OneOf(
    {"neox": Training, "vit": VisionTraining}, {}, key="architecture", default="neox"
)


class TrainedModel(ModelSection):
    """A model this workflow trains.

    Checkpoints of a language model are steps, named step0, step4, ...; of an image model epochs.
    """

    source: Literal["train"] = "train"
    """Kind of source; may be omitted."""
    train: Annotated[Training | VisionTraining, ARCHITECTURES.validator()] = Training()
    checkpoints: Annotated[list[NonNegativeInt], Unit("updates, or epochs of an image model")] = (
        Field(default=[])
    )
    """Unset: 0, the powers of four and the last step."""
    population: Annotated[Name | None, Field(examples=["sweep"])] = None
    """The population of this model; see `config.populations`."""
    together: Annotated[PositiveInt, Unit("members")] = 1
    """Members of the population whose small jobs share a process."""

    @model_validator(mode="after")
    def _steps_exist(self) -> "TrainedModel":
        last = length(self.train)
        powers = [4**n for n in range(16) if 4**n < last]
        self.checkpoints = sorted(set(self.checkpoints or [0, *powers, last]))
        if self.checkpoints[-1] > last:
            raise ValueError(
                f"checkpoints: {unit(self.train)} {self.checkpoints[-1]} is after the last, "
                f"train.{unit(self.train)}s = {last}"
            )
        return self

    @property
    def takes(self) -> Modality:
        """What the model takes."""
        return "text" if isinstance(self.train, Training) else "image"

    def trained_checkpoints(self) -> dict[str, int]:
        """Names of the checkpoints, with their steps or epochs."""
        return {f"{unit(self.train)}{number}": number for number in self.checkpoints}

    def where(self, checkpoint: str) -> dict[str, Any]:
        """The checkpoint's name; the study knows the directory."""
        # Every checkpoint has the same configuration: the first is there whichever are asked for.
        number = 0 if checkpoint == INIT else self._place(checkpoint)
        return {"source": self.source, "path": f"{unit(self.train)}{number}"}


def unit(train: Training | VisionTraining) -> str:
    """What the checkpoints of a training are counted in."""
    return "step" if isinstance(train, Training) else "epoch"


def length(train: Training | VisionTraining) -> int:
    """Length of a whole training, in its unit."""
    return train.steps if isinstance(train, Training) else train.epochs


class _Downloaded(ModelSection):
    modality: Modality = "text"
    """The model's input; `image` for a vision transformer."""
    trust_remote_code: bool = False
    """Run the code that comes with the weights."""
    allow_pickle: bool = False
    """Read weights from `.bin` files (pickles) if there is no safetensors file."""

    @property
    def takes(self) -> Modality:
        """What the model takes."""
        return self.modality

    def _permissions(self) -> dict[str, Any]:
        return self.model_dump(include={"trust_remote_code", "allow_pickle"})


class LocalModel(_Downloaded):
    """A model in a Hugging Face directory, or a training run in several."""

    source: Literal["local"] = "local"
    """Kind of source; may be omitted."""
    path: Annotated[UserPath | None, Field(examples=["models/mine"])] = None
    """Directory of the model: one checkpoint, named main."""
    checkpoints: dict[Name, UserPath] = Field(default={}, examples=[{"step100": "runs/1/step100"}])
    """Directories by the name of the checkpoint, instead of `path`."""
    tokenizer: Annotated[UserPath | None, Field(examples=["models/mine-tokenizer"])] = None
    """Directory of the tokenizer, if not that of the weights."""

    @model_validator(mode="after")
    def _one_way_to_say_where(self) -> "LocalModel":
        if (self.path is None) == (not self.checkpoints):
            raise ValueError("give either path (one directory) or checkpoints (name: directory)")
        _refuse_init(self.checkpoints)
        return self

    def trained_checkpoints(self) -> dict[str, Path]:
        """Names of the checkpoints, with their directories."""
        return self.checkpoints if self.path is None else {"main": self.path}

    def published_names(self) -> dict[str, str | None]:
        """The directories, and their last parts."""
        places = self.trained_checkpoints().items()
        named = {each: name for name, path in places for each in (str(path), path.name)}
        return {**named, **super().published_names()}

    def where(self, checkpoint: str) -> dict[str, Any]:
        """The checkpoint's directory and the tokenizer's."""
        return {
            "source": self.source,
            "path": str(self._place(checkpoint)),
            "tokenizer": None if self.tokenizer is None else str(self.tokenizer),
            **self._permissions(),
        }


class HubModel(_Downloaded):
    """A model of the Hugging Face hub; checkpoints are revisions: branch, tag or commit."""

    source: Literal["hub"] = "hub"
    """Kind of source; may be omitted."""
    id: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")
    """Name on the hub, such as EleutherAI/pythia-70m."""
    revision: str = Field(default="main", min_length=1)
    """Branch, tag or commit; only a commit never changes."""
    checkpoints: dict[Name, str] = Field(default={}, examples=[{"early": "step1000"}])
    """Name: revision; a list means that the names are the revisions. Unset: `main: {revision}`."""

    @field_validator("checkpoints", mode="before")
    @classmethod
    def _list_of_revisions(cls, value: Any) -> Any:
        return {name: name for name in value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _has_a_checkpoint(self) -> "HubModel":
        self.checkpoints = self.checkpoints or {"main": self.revision}
        _refuse_init(self.checkpoints)
        return self

    def trained_checkpoints(self) -> dict[str, str]:
        """Names of the checkpoints, with their revisions."""
        return self.checkpoints

    def published_names(self) -> dict[str, str | None]:
        """The repository's id."""
        return {self.id: None, **super().published_names()}

    def where(self, checkpoint: str) -> dict[str, Any]:
        """The repository and the revision."""
        revision = self.revision if checkpoint == INIT else self._place(checkpoint)
        return {
            "source": self.source,
            "id": self.id,
            "revision": revision,
            **self._permissions(),
        }


def _refuse_init(checkpoints: Mapping[str, object]) -> None:
    if INIT in checkpoints:
        raise ValueError(
            "checkpoints: the name `init` stands for re-initialised weights; ask for them with "
            "`init: true`, or choose another name"
        )


MODELS = OneOf(
    {"train": TrainedModel, "local": LocalModel, "hub": HubModel},
    {"train": "train", "id": "hub", "path": "local"},
)
Model = Annotated[TrainedModel | LocalModel | HubModel, MODELS.validator()]
