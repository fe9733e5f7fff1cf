"""How large the models and datasets of a study are, as far as can be known without a download."""

import json
from collections.abc import Mapping
from functools import lru_cache
from math import ceil
from statistics import fmean
from typing import Any

from blockcoupling.config.datasets import BuiltinDataset, JsonlDataset
from blockcoupling.config.models import LocalModel, TrainedModel, Training
from blockcoupling.config.places import NAMED
from blockcoupling.config.study import Study
from blockcoupling.config.vision import VisionTraining
from blockcoupling.errors import UserError
from blockcoupling.sources.local import checkpoint_facts, count_parameters
from blockcoupling.sources.prompts import load_prompts

UNKNOWN_SIZE = 1_000_000_000
"""Parameters of a model that does not say how many it has."""
UNKNOWN_PROMPTS = 200
USUAL_TOKENS = 512
"""Tokens of a long prompt."""
USUAL_PROMPT = 100
"""Tokens of an ordinary prompt."""
USUAL_PATCHES = 200
"""Tokens of an ordinary image."""
BYTES_PER_TOKEN = 4
"""Of a tokenizer that is not one of bytes."""
LARGEST_VOCABULARY = 256_000
"""Vocabulary size that memory is asked for if a model does not give it."""
USUAL_VOCABULARY = 50_000
"""The same for estimates of time."""


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
    """Prompts of a dataset: its limit, else those on this machine, else 200."""
    counted, _ = _texts(study, dataset)
    return study.datasets[dataset].prompts or counted or UNKNOWN_PROMPTS


def tokens_of(study: Study, model: str, dataset: str) -> int:
    """Tokens that a model makes of an ordinary prompt of a dataset."""
    section = study.models[model]
    if section.takes != "text":
        trained = section.train if isinstance(section, TrainedModel) else None
        return trained.tokens if isinstance(trained, VisionTraining) else USUAL_PATCHES
    _, size = _texts(study, dataset)
    return ceil(size / bytes_per_token(study, model)) if size else USUAL_PROMPT


def bytes_per_token(study: Study, model: str) -> int:
    """Bytes of text that a token stands for; models trained here read bytes."""
    return 1 if isinstance(study.models[model], TrainedModel) else BYTES_PER_TOKEN


def _texts(study: Study, dataset: str) -> tuple[int, float]:
    """Number of prompts on this machine, and their mean bytes; zeros if they are not known."""
    section = study.datasets[dataset]
    if not isinstance(section, BuiltinDataset | JsonlDataset):
        return 0, 0.0
    return _counted(json.dumps(study.dataset_spec(dataset) | {"prompts": None}))


@lru_cache(maxsize=256)
def _counted(spec: str) -> tuple[int, float]:
    try:
        sizes = [len(prompt.text.encode()) for prompt in load_prompts(json.loads(spec))]
    except UserError:  # `check` says what is wrong with it
        return 0, 0.0
    return len(sizes), fmean(sizes)


def pairs_of(tokens: Any, length: int = USUAL_TOKENS) -> int:
    """Jacobians of a prompt of so many tokens, for `extract.tokens`."""
    if isinstance(tokens, dict):
        return length // int(tokens["every"]) + 1
    if isinstance(tokens, list):
        return len(tokens)
    return 1 if tokens in NAMED else length


def block_parameters(study: Study, model: str) -> float:
    """Parameters of one block: without embeddings, of which a model may not say how many it has."""
    size, (dimension, blocks) = parameters(study, model), shape_of(study, model)
    outside = min(size, vocabulary_of(study, model, USUAL_VOCABULARY) * dimension)
    return min(size / blocks, max((size - outside) / blocks, 12.0 * dimension**2))


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


def vocabulary_of(study: Study, model: str, unknown: int = LARGEST_VOCABULARY) -> int:
    """Kinds of tokens that a model knows; 0 for one of images; `unknown` if it does not say."""
    section = study.models[model]
    if isinstance(section, TrainedModel):
        # Bytes, and a special token.
        return 257 if section.takes == "text" else 0
    if isinstance(section, LocalModel):
        directory = list(section.trained_checkpoints().values())[-1]
        return checkpoint_facts(directory)["vocabulary"] or unknown
    return _fact(section.facts, "vocabulary") or unknown


def _fact(facts: Mapping[str, Any], name: str) -> int | None:
    """A number among a model's facts: of its own configuration, else of a table."""
    for source in ("config", "table"):
        known = facts.get(source)
        value = known.get(name) if isinstance(known, Mapping) else None
        if isinstance(value, int | float) and value > 0:
            return int(value)
    return None
