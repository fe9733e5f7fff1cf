"""What the laboratory's jobs ask for: training, checkpoints and ablation."""

from dataclasses import replace
from math import ceil

from blockcoupling.config.damage import changes
from blockcoupling.config.models import TrainedModel, Training
from blockcoupling.config.study import Study
from blockcoupling.config.vision import VisionTraining
from blockcoupling.lab.ablation.course import MOST_NUMBERS, MOST_TOGETHER, passes
from blockcoupling.study.needs import (
    CALLS_FORWARD,
    CALLS_PER_RECORD,
    CALLS_PER_STORE,
    CONVERTING,
    LOADED,
    STORED,
    Needs,
    megabytes,
    on_device,
    on_gpu,
    on_machine,
    reading,
)
from blockcoupling.study.rates import rates_of
from blockcoupling.study.sizes import (
    USUAL_PROMPT,
    USUAL_VOCABULARY,
    block_parameters,
    parameters,
    prompts_of,
    shape_of,
    tokens_of,
    vocabulary_of,
)

USUAL_CHOICES = 4
"""Choices of an ordinary question."""
CALLS_PER_UPDATE = 2.0
"""An update of a small block, in calls forward and backward (rate `call`)."""
BYTES_PER_LOGIT = 72
"""Read and written for each logit of a changed model: its logarithm, the divergence, the loss."""
ATTENTION_READ = 8
"""How often an update reads the attention weights of all heads."""


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
    updates, rates = shape.blocks * ceil(samples / shape.batch), rates_of(study)
    calls = CALLS_PER_UPDATE * updates
    attention = LOADED * shape.batch * shape.heads * each**2 * updates * ATTENTION_READ
    if isinstance(shape, VisionTraining) and on_gpu(study.extract.device):
        loading, device = LOADED * size * processes, study.extract.device
        needs = on_device(rates, device, size, held, work / processes, calls=calls, loading=loading)
        needs = replace(needs, gpus=processes, threads=processes)
    else:
        processor = rates.processor
        seconds = work / processes / processor.flops + calls * processor.call
        seconds += attention * CONVERTING / processor.memory
        needs = on_machine(processor, processes * held, seconds, processor.start, threads=processes)
    # A state is weights and two moments: one for each checkpoint, and one on the way.
    states = 3 * LOADED * size * (len(section.checkpoints) + 1)
    return replace(needs, disk_mb=megabytes(states))


def checkpoint_needs(study: Study, model: str) -> Needs:
    """Writing a checkpoint from a state, or training to there if that state was not kept."""
    needs, minutes = (
        train_needs(study, model),
        CALLS_PER_RECORD * rates_of(study).processor.call / 60,
    )
    disk = megabytes(LOADED * parameters(study, model))
    return replace(needs, expected=minutes, starting=0.0, disk_mb=disk)


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
    # Shorter texts of a batch are filled up to its longest.
    length = tokens_of(study, model, dataset) if not options.answers else USUAL_PROMPT
    longest = max(length, options.window) if options.passages else length
    texts += options.passages
    vocabulary = vocabulary_of(study, model, USUAL_VOCABULARY)
    block = block_parameters(study, model)
    precision = 2 if options.dtype == "float64" else 1
    work = 2.0 * texts * longest * (through * block + heads * min(size, vocabulary * dimension))
    held = min(size, 2 * head + ceil(2 * block)) if options.stream else size
    # Logits before and after, twice each: themselves and their logarithms.
    measured = precision * LOADED * (held + 4 * MOST_NUMBERS)
    batches = ceil(texts / (options.batch or MOST_TOGETHER))
    reads = block * through * batches if options.stream else size
    rates = rates_of(study)
    memory = rates.gpu.memory if on_gpu(options.device) else rates.processor.memory / CONVERTING
    logits = BYTES_PER_LOGIT * heads * texts * longest * vocabulary / memory
    return on_device(
        rates,
        options.device,
        size,
        measured,
        work,
        calls=CALLS_PER_STORE + CALLS_FORWARD * (through + heads) * batches,
        seconds=reading(rates.processor, reads) + logits,
        loading=(LOADED + STORED) * held,
        double=options.dtype == "float64",
    )
