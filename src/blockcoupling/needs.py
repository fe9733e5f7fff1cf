"""What a step of a study asks for: memory, minutes, threads and GPUs, from a model's size.

Rough on purpose, and on the safe side: an estimate decides where a scheduler puts a job and when
it may kill it, not how the job runs. Rates are those of one core of an ordinary server.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

from blockcoupling.local import count_parameters
from blockcoupling.memory import bytes_per_prompt
from blockcoupling.study import Study
from blockcoupling.study.models import LocalModel, TrainedModel

UNKNOWN_SIZE = 1_000_000_000
"""Parameters of a model that does not say how many it has."""
UNKNOWN_PROMPTS = 200
USUAL_TOKENS = 512
"""Tokens of a long prompt."""

FLOPS_PER_CORE = 2e10
FLOPS_PER_GPU = 1e13
IMPORTS_MB = 1200
"""What Python, PyTorch, transformers and Snakemake's own process take."""


@dataclass(frozen=True)
class Needs:
    """What one job asks for."""

    mem_mb: int
    minutes: int
    threads: int = 1
    gpus: int = 0


def parameters(study: Study, model: str) -> int:
    """Number of parameters of a model, as far as it can be told without downloading it."""
    section = study.models[model]
    if section.parameters is not None:
        return section.parameters
    if isinstance(section, TrainedModel):
        shape = section.train
        # A GPT block has 12 d² weights; in and out there is a byte-level embedding each.
        return shape.hidden_size * (12 * shape.hidden_size * shape.blocks + 2 * 257)
    if isinstance(section, LocalModel):
        directory = list(section.trained_checkpoints().values())[-1]
        return count_parameters(directory) or UNKNOWN_SIZE
    return UNKNOWN_SIZE


def train_needs(study: Study, model: str) -> Needs:
    """Training: weights, gradients and two moments; 6 operations a parameter and token."""
    section = study.models[model]
    assert isinstance(section, TrainedModel)
    size, shape = parameters(study, model), section.train
    tokens = shape.steps * shape.batch * shape.context
    activations = 40 * shape.batch * shape.context * shape.hidden_size * shape.blocks
    return Needs(
        mem_mb=IMPORTS_MB + _mb(16 * size + activations),
        minutes=_minutes(6 * size * tokens / FLOPS_PER_CORE),
    )


def record_needs(study: Study, model: str) -> Needs:
    """Looking a checkpoint up, and downloading it at 10 MB/s where it lies elsewhere."""
    download = (
        0.0 if isinstance(study.models[model], TrainedModel) else 4 * parameters(study, model)
    )
    return Needs(mem_mb=IMPORTS_MB, minutes=_minutes(download / 1e7))


def extract_needs(study: Study, model: str, dataset: str) -> Needs:
    """Extraction: the weights twice while they load, then twice what a batch of prompts takes."""
    size = parameters(study, model)
    dimension, blocks = _shape(size)
    options = study.extract
    pairs = _pairs(options.tokens)
    batch = options.batch or (8 if pairs == 1 else 1)
    each = bytes_per_prompt(dimension, blocks, options.k_for(dimension), USUAL_TOKENS, pairs)
    precision = 2 if options.dtype == "float64" else 1
    weights = size // blocks if options.stream else size
    # The full SVD of a d × d matrix costs about 20 d³; a row of J as much as a token, twice.
    work = blocks * 20 * dimension**3 + 4 * size * dimension
    return _on_device(
        study,
        size,
        precision * (2 * 4 * weights + 2 * batch * each),
        precision * work * pairs * _prompts(study, dataset),
    )


def score_needs(study: Study, model: str) -> Needs:
    """Scoring: the weights twice while they load, and a pass over a few hundred thousand tokens."""
    size = parameters(study, model)
    questions = sum(task.limit or 10_000 for task in study.score.harness.values())
    return _on_device(study, size, 2 * 4 * size, 2.0 * size * (50_000 + 800 * questions))


def reduce_needs(study: Study, model: str, dataset: str) -> Needs:
    """Reducing: a few times one prompt's A, several hundred prompts a minute."""
    dimension, blocks = _shape(parameters(study, model))
    one_prompt = 4 * (blocks * study.extract.k_for(dimension)) ** 2
    return Needs(mem_mb=1000 + _mb(10 * one_prompt), minutes=10 + _prompts(study, dataset) // 20)


def _on_device(study: Study, size: int, memory: float, flops: float) -> Needs:
    threads = 1 if size < 3e8 else 4 if size < 3e9 else 8
    gpus = int(study.extract.device.startswith("cuda"))
    rate = FLOPS_PER_GPU if gpus else FLOPS_PER_CORE * threads
    return Needs(
        mem_mb=IMPORTS_MB + _mb(memory), minutes=_minutes(flops / rate), threads=threads, gpus=gpus
    )


def _prompts(study: Study, dataset: str) -> int:
    return study.datasets[dataset].prompts or UNKNOWN_PROMPTS


def _pairs(tokens: Any) -> int:
    """How many Jacobians a long prompt has, for `extract.tokens`."""
    if isinstance(tokens, dict):
        return USUAL_TOKENS // int(tokens["every"]) + 1
    if isinstance(tokens, list):
        return len(tokens)
    return 1 if tokens == "last" else USUAL_TOKENS


def _shape(size: int) -> tuple[int, int]:
    """Dimension and number of blocks that a model of this size usually has."""
    dimension = 2.1 * size ** (1 / 3)
    return ceil(dimension), max(2, ceil(size / (12 * dimension**2)))


def _mb(count: float) -> int:
    return ceil(count / 2**20)


def _minutes(seconds: float) -> int:
    """Three times the estimate, and at least ten minutes."""
    return max(10, ceil(3 * seconds / 60))
