"""Section `score`: how well checkpoints do."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from blockcoupling.config.datasets import Template
from blockcoupling.config.published import Several
from blockcoupling.config.section import Name, Section, Unit, UserPath

Metric = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._,@-]*$", max_length=100)
]
"""A name that may have a filter of the harness after a comma."""


class HarnessTask(Section):
    """A task of lm-evaluation-harness: its own, or multiple choice over a local JSONL file."""

    task: Annotated[str | None, Field(examples=["arc_easy"])] = None
    """Its name in the harness; defaults to its name here."""
    path: Annotated[UserPath | None, Field(examples=["questions.jsonl"])] = None
    """File of questions, instead of a task."""
    template: Annotated[Template | None, Field(examples=["mmlu"])] = None
    """How a question is made from a row of the file."""
    few_shot: Annotated[NonNegativeInt, Unit("examples")] = 0
    """Solved examples in front of each question."""
    limit: Annotated[PositiveInt | None, Unit("questions")] = None
    """Number of questions to sample; defaults to all."""
    seed: NonNegativeInt = 0
    """Seed of the choice of examples."""

    @model_validator(mode="after")
    def _local_or_not(self) -> "HarnessTask":
        if (self.path is None) != (self.template is None):
            raise ValueError("path and template: give both; a local file needs a template")
        return self


class Score(Section):
    """Scores of models: evaluated here, or recorded in their sections."""

    name: Name = "heldout"
    """The score that coupling is correlated with."""
    metric: Annotated[Metric | None, Field(examples=["exact_match,strict-match"])] = None
    """Its metric; default: the first that the scores have."""
    heldout: bool = True
    """Evaluate loss and next-token accuracy on the built-in held-out text."""
    test: bool = True
    """Evaluate image models trained here on the images that were held out."""
    test_metric: Literal["accuracy", "loss", "calibration_error"] = "accuracy"
    """The metric of the score `test` that the coupling of image models is correlated with."""
    gap: bool = False
    """Evaluate models trained here on their training text too, for the generalization gap: how much
    worse they do on the held-out text."""
    harness: dict[Name, HarnessTask] = Field(default={})
    published: list[UserPath] = Field(default=[], examples=[["leaderboard/"]])
    """Result files of others, directories or patterns: Every Eval Ever, lm-evaluation-harness."""
    several: Several = "refuse"
    """Where results of others differ for a checkpoint: refuse them, or take the newest."""
    repositories: bool = False
    """Read the results that the models' repositories hold (`.eval_results/*.yaml`)."""

    @model_validator(mode="after")
    def _gap_to_heldout(self) -> "Score":
        if self.gap and not self.heldout:
            raise ValueError("gap: it is the gap to held-out text, so heldout must not be false")
        return self
