"""The laboratory's steps of a study (see `config.steps`)."""

from collections.abc import Iterable

from blockcoupling.config import steps
from blockcoupling.config.artifacts import DAMAGE_STATISTICS, INTERVENTION_STATISTICS
from blockcoupling.config.choices import Modality
from blockcoupling.config.models import TrainedModel, unit
from blockcoupling.config.steps import CHECKPOINT, MEASUREMENT, OF_CHECKPOINT, OF_MEASUREMENT, Step
from blockcoupling.config.study import Study

_NEEDS, _OPTIONS = "blockcoupling.lab.needs", "blockcoupling.lab.options"


def trained(study: Study) -> dict[str, TrainedModel]:
    """The models that the study trains."""
    return {
        name: section for name, section in study.models.items() if isinstance(section, TrainedModel)
    }


def _kept(study: Study, modality: Modality) -> Iterable[tuple[str, ...]]:
    """Each checkpoint that is kept of the models of a modality."""
    return [
        (model, f"{unit(section.train)}{number}")
        for model, section in trained(study).items()
        if section.takes == modality
        for number in section.checkpoints
    ]


def _checkpoint(name: str, modality: Modality, *more: str) -> Step:
    files = ("config.json", "model.safetensors", *more, "training.json")
    return Step(
        name,
        CHECKPOINT,
        lambda study: _kept(study, modality),
        files=tuple(f"checkpoints/{OF_CHECKPOINT}/{file}" for file in files),
        needs=f"{_NEEDS}:checkpoint_needs",
        options=f"{_OPTIONS}:checkpoint",
        other_verb="train",
    )


MODELS = (
    Step(
        "train",
        ("model",),
        lambda study: [(model,) for model in trained(study)],
        files=("training/{model}/trained.json",),
        parts="training/{model}",
        needs=f"{_NEEDS}:train_needs",
        options=f"{_OPTIONS}:train",
        result=False,
    ),
    _checkpoint("checkpoint", "text", "tokenizer.json", "tokenizer_config.json"),
    _checkpoint("image_checkpoint", "image", "preprocessor_config.json"),
)
DAMAGE = Step(
    "damage",
    MEASUREMENT,
    lambda study: study.damage_jobs(),
    {
        "block_damage": f"damage/{OF_MEASUREMENT}/damage.zarr",
        "damage": f"tables/{OF_MEASUREMENT}/damage.parquet",
    },
    parts=f"damage_parts/{OF_MEASUREMENT}",
    needs=f"{_NEEDS}:damage_needs",
    options=f"{_OPTIONS}:damage",
    prompts=lambda study: study.damage.prompts if study.damage else None,
)
STATISTICS = (
    Step(
        "damage_statistics",
        jobs=lambda study: [()] if any(study.damage_jobs()) else [],
        makes={kind: f"statistics/{kind}.parquet" for kind in DAMAGE_STATISTICS},
        options=f"{_OPTIONS}:damage_statistics",
    ),
    Step(
        "intervention",
        jobs=lambda study: [()] if study.intervention else [],
        makes={kind: f"statistics/{kind}.parquet" for kind in INTERVENTION_STATISTICS},
        options=f"{_OPTIONS}:intervention",
    ),
)


def add_steps() -> None:
    """Add the laboratory's rows to the table of steps."""
    steps.add(*MODELS, before="weights")
    steps.add(DAMAGE, before="reduce")
    steps.add(*STATISTICS, before="costs")
