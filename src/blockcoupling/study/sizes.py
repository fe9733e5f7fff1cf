"""How large the models and datasets of a study are, as far as can be known without a download."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from blockcoupling.config.models import LocalModel, TrainedModel, Training
from blockcoupling.config.places import NAMED
from blockcoupling.config.study import Study
from blockcoupling.sources.local import checkpoint_facts, count_parameters

UNKNOWN_SIZE = 1_000_000_000
"""Parameters of a model that does not say how many it has."""
UNKNOWN_PROMPTS = 200
USUAL_TOKENS = 512
"""Tokens of a long prompt."""
LARGEST_VOCABULARY = 256_000
"""Vocabulary size that is assumed if a model does not give it."""


def parameters(study: Study, model: str) -> int:
    """Number of parameters of a model, as far as it is known without a download."""
    section = study.models[model]
    if section.parameters is not None:
        return section.parameters
    if isinstance(section, TrainedModel):
        train = section.train
        # A block has 12 d² weights; in and out there is a byte-level embedding each, or one of
        # patches and one of positions.
        ends = 2 * 257 if isinstance(train, Training) else 3 * train.patch**2 + train.tokens
        return train.hidden_size * (12 * train.hidden_size * train.blocks + ends)
    if isinstance(section, LocalModel):
        directory = list(section.trained_checkpoints().values())[-1]
        return count_parameters(directory) or UNKNOWN_SIZE
    return _fact(section.facts, "parameters") or UNKNOWN_SIZE


def prompts_of(study: Study, dataset: str) -> int:
    """Prompts of a dataset; 200 where its section does not limit them."""
    return study.datasets[dataset].prompts or UNKNOWN_PROMPTS


def pairs_of(tokens: Any) -> int:
    """Jacobians of a long prompt, for `extract.tokens`."""
    if isinstance(tokens, dict):
        return USUAL_TOKENS // int(tokens["every"]) + 1
    if isinstance(tokens, list):
        return len(tokens)
    return 1 if tokens in NAMED else USUAL_TOKENS


def shape_of(study: Study, model: str) -> tuple[int, int]:
    """Dimension and number of blocks: given, read, or usual for a model of this size."""
    section, size = study.models[model], parameters(study, model)
    if isinstance(section, TrainedModel):
        return section.train.hidden_size, section.train.blocks
    facts = section.facts
    if isinstance(section, LocalModel):
        facts = {"config": checkpoint_facts(list(section.trained_checkpoints().values())[-1])}
    dimension = _fact(facts, "dimension") or ceil(2.1 * size ** (1 / 3))
    blocks = _fact(facts, "blocks") or ceil(size / (12 * dimension**2))
    return dimension, max(2, blocks)


def vocabulary_of(study: Study, model: str) -> int:
    """Kinds of tokens that a model knows; 0 for one of images."""
    section = study.models[model]
    if isinstance(section, TrainedModel):
        # Bytes, and a special token.
        return 257 if section.takes == "text" else 0
    if isinstance(section, LocalModel):
        directory = list(section.trained_checkpoints().values())[-1]
        return checkpoint_facts(directory)["vocabulary"] or LARGEST_VOCABULARY
    return LARGEST_VOCABULARY


def _fact(facts: Mapping[str, Any], name: str) -> int | None:
    """A number among a model's facts: of its own configuration, else of a table."""
    for source in ("config", "table"):
        known = facts.get(source)
        value = known.get(name) if isinstance(known, Mapping) else None
        if isinstance(value, int | float) and value > 0:
            return int(value)
    return None
