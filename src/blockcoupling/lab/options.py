"""Options of the laboratory's verbs, out of a study (see `study.options`)."""

import shlex
from typing import Any

from blockcoupling.config.damage import CauseDamage
from blockcoupling.config.flags import flags_of
from blockcoupling.config.models import step_of
from blockcoupling.config.study import Study
from blockcoupling.study.options import as_json, on_any_device, words


def _training(study: Study, model: str) -> dict[str, Any]:
    """Settings that affect the weights; which steps are kept does not."""
    spec = study.train_spec(model)
    return {key: value for key, value in spec.items() if key != "checkpoints"}


def train(study: Study, model: str) -> str:
    """A training, without the checkpoints that are kept of it."""
    return words(spec=as_json(_training(study, model)))


def checkpoint(study: Study, model: str, checkpoint: str) -> str:
    """One checkpoint of a training."""
    return words(spec=as_json(_training(study, model) | {"checkpoints": [step_of(checkpoint)]}))


def kept_states(study: Study, model: str) -> str:
    """The checkpoints whose states a training keeps."""
    section: Any = study.models[model]
    return words(checkpoints=",".join(map(str, section.checkpoints)))


def damage(study: Study, model: str, checkpoint: str, dataset: str) -> str:
    """What is done to blocks, and on how many prompts the loss is measured."""
    options = on_any_device(study.damage_of(model, checkpoint, dataset))
    settings = shlex.join(flags_of(options, CauseDamage))
    return f"{settings} {words(count=options.prompts)}"


def damage_statistics(study: Study) -> str:
    """What ablation damage is compared with."""
    assert study.damage is not None
    return words(k=study.correlate.k, variant=study.correlate.variant, also=study.damage.k)


def intervention(study: Study) -> str:
    """Which populations are compared, and on which outcomes."""
    assert study.intervention is not None
    return words(
        spec=as_json(study.intervention.model_dump(mode="json")),
        k=study.correlate.k,
        variant=study.correlate.variant,
        metric=study.headline("text")[1],
    )
