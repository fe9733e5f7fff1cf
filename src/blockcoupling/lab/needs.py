"""What the laboratory's jobs ask for: training, checkpoints and ablation."""

from dataclasses import replace
from math import ceil

from blockcoupling.config.damage import changes
from blockcoupling.config.models import TrainedModel, Training
from blockcoupling.config.study import Study
from blockcoupling.config.vision import VisionTraining
from blockcoupling.lab.ablation.course import MOST_NUMBERS, passes
from blockcoupling.study.needs import (
    FLOPS_PER_CORE,
    LOADED,
    READ,
    STORED,
    Needs,
    megabytes,
    on_device,
    on_gpu,
    on_machine,
)
from blockcoupling.study.sizes import parameters, prompts_of, shape_of, vocabulary_of

USUAL_PROMPT = 100
"""Tokens of an ordinary prompt."""
USUAL_CHOICES = 4
"""Choices of an ordinary question."""


def train_needs(study: Study, model: str) -> Needs:
    """Training: weights, gradients and two moments; 6 operations a parameter and token.

    An image model is trained on the device that models are measured on, one GPU a process.
    """
    section = study.models[model]
    assert isinstance(section, TrainedModel)
    size, shape = parameters(study, model), section.train
    each = shape.context if isinstance(shape, Training) else shape.tokens
    samples = (
        shape.steps * shape.batch if isinstance(shape, Training) else shape.epochs * shape.seen
    )
    activations = 40 * shape.batch * each * shape.hidden_size * shape.blocks
    held, work = 16 * size + activations, 6.0 * size * samples * each
    processes = shape.processes
    if isinstance(shape, VisionTraining) and on_gpu(study.extract.device):
        loading = LOADED * size * processes
        needs = on_device(study.extract.device, size, held, work / processes, 0, loading)
        needs = replace(needs, gpus=processes, threads=processes)
    else:
        seconds = work / processes / FLOPS_PER_CORE
        needs = on_machine(processes * held, seconds, threads=processes)
    # A state is weights and two moments: one for each checkpoint, and one on the way.
    states = 3 * LOADED * size * (len(section.checkpoints) + 1)
    return replace(needs, disk_mb=megabytes(states))


def checkpoint_needs(study: Study, model: str) -> Needs:
    """Writing a checkpoint from a state, or training to there if that state was not kept."""
    needs = train_needs(study, model)
    return replace(needs, expected=0.0, disk_mb=megabytes(LOADED * parameters(study, model)))


def damage_needs(study: Study, model: str, dataset: str, checkpoint: str | None = None) -> Needs:
    """Ablation: every change of blocks on every text, from its first block to the logits."""
    assert study.damage is not None
    checkpoint = checkpoint or study.checkpoints(model)[-1]
    options, size = study.damage_of(model, checkpoint, dataset), parameters(study, model)
    dimension, blocks = shape_of(study, model)
    head = min(size, vocabulary_of(study, model) * dimension)
    through, heads = passes(changes(options, blocks), blocks)
    texts = min(options.prompts, prompts_of(study, dataset))
    if options.answers:
        texts *= 1 + USUAL_CHOICES
    tokens = texts * USUAL_PROMPT + options.passages * options.window
    block = max(1, size - head) / blocks
    precision = 2 if options.dtype == "float64" else 1
    work = 2.0 * precision * tokens * (through * block + heads * head)
    held = min(size, 2 * head + ceil(2 * block)) if options.stream else size
    # Logits before and after, twice each: themselves and their logarithms.
    measured = precision * LOADED * (held + 4 * MOST_NUMBERS)
    batches = ceil((texts + options.passages) / 4)
    reads = STORED * block * through * batches if options.stream else STORED * size
    return on_device(
        options.device,
        size,
        measured,
        work,
        reading=reads / READ,
        loading=(LOADED + STORED) * held,
    )
