"""Section `score`: how well checkpoints do."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from blockcoupling.config.datasets import Template
from blockcoupling.config.section import Name, Section, UserPath


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
