"""The sections of what is done with what was measured, and with the tokens of a prompt."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from blockcoupling.config.datasets import Template
from blockcoupling.config.measurement import CompareTokens
from blockcoupling.config.places import Positions
from blockcoupling.config.section import Name, Section, UserPath
from blockcoupling.config.variants import DEFAULT_VARIANT, VARIANTS, VariantName

ClusterKind = Literal["threads", "local", "slurm"]


class Reduce(Section):
    """Which K and which variants are tabulated, and where that is calculated."""

    k: list[PositiveInt] = Field(default=[])
    """Unset: those of 1, 2, 5, 10, 20, 30, 50 that are at most K_max."""
    variants: list[VariantName] = Field(default=list(VARIANTS), min_length=1)
    cluster: ClusterKind = "threads"
    """Dask's threads, processes of one machine, or jobs of Slurm."""
    workers: PositiveInt = Field(default_factory=lambda data: 4 if _processes(data) else 1)
    """How many for each store."""
    dashboard: bool = False
    """Serve Dask's dashboard while a store is reduced; its address is in the log."""


def _processes(data: dict[str, Any]) -> bool:
    return data.get("cluster", "threads") != "threads"


class WorkerJob(Section):
    """What a worker of a reduction asks Slurm for."""

    memory_mb: PositiveInt = 2000
    minutes: PositiveInt = 60
    """After these Slurm may stop it; another one takes its place."""
    partition: str | None = None
    """Unset: the site's default."""
    account: str | None = None
    logs: UserPath = Path("dask-workers")
    """The directory of its output, made where it is missing."""


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
    test: bool = True
    """Evaluate image models trained here on the images that were held out."""
    test_metric: Literal["accuracy", "loss", "calibration_error"] = "accuracy"
    """Of the score `test`, the metric that the coupling of image models is held against."""
    gap: bool = False
    """Of models trained here: also on text that they were trained on, and how much worse they do
    on the held-out text (generalization gap)."""
    harness: dict[Name, HarnessTask] = Field(default={})

    @model_validator(mode="after")
    def _gap_to_heldout(self) -> "Score":
        if self.gap and not self.heldout:
            raise ValueError("gap: the gap is to held-out text; leave out heldout: false")
        return self


class Correlate(Section):
    """What is held against the score."""

    k: PositiveInt | None = None
    """Unset: 10, or the largest tabulated K below it."""
    variant: VariantName = DEFAULT_VARIANT
    bootstrap: PositiveInt = 2000
    checkpoints: Literal["all", "final"] = "all"
    seed: NonNegativeInt | None = None
    """Seed of the bootstrap; unset, the study's."""


class Together(Section):
    """Which jobs share a process beside those of a population."""

    datasets: bool = False
    """A checkpoint is measured on all datasets in one job, which loads it once."""


class Figures(Section):
    """How figures are written."""

    formats: list[Literal["pdf", "png", "svg"]] = Field(default=["pdf", "png"], min_length=1)
