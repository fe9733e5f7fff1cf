"""What a step of a study asks for: memory, minutes, threads and GPUs, from a model's size.

Rough on purpose, and on the safe side: an estimate decides where a scheduler puts a job and when
it may kill it, not how the job runs. Rates are those of one core of an ordinary server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from blockcoupling.config.damage import changes
from blockcoupling.config.models import INIT, LocalModel, TrainedModel, Training
from blockcoupling.config.places import NAMED
from blockcoupling.config.study import Study
from blockcoupling.config.vision import VisionTraining
from blockcoupling.lab.ablation.course import MOST_NUMBERS, passes
from blockcoupling.measurement.memory import (
    BYTES,
    bytes_per_prompt,
    products_kept,
    prompts_at_once,
)
from blockcoupling.measurement.token_cost import cost
from blockcoupling.reduce.chunks import most_bytes_of_a_chunk
from blockcoupling.sources.local import checkpoint_facts, count_parameters

UNKNOWN_SIZE = 1_000_000_000
"""Parameters of a model that does not say how many it has."""
UNKNOWN_PROMPTS = 200
TESTED = 10_000
"""Images held out, as CIFAR-10 has."""
USUAL_TOKENS = 512
"""Tokens of a long prompt."""
USUAL_PROMPT = 100
"""Tokens of an ordinary prompt."""
LARGEST_VOCABULARY = 256_000
"""Of a model that does not say how many kinds of tokens it has."""
GPU_MEMORY = 80 * 10**9
"""Bytes that batches are made for where no size of batch is given."""

FLOPS_PER_CORE = 4e10
FLOPS_PER_GPU = 1e13
READ = 5e8
"""Bytes a second that weights are read from files at."""
DOWNLOAD = 1e7
"""Bytes a second."""
LOADED = 4
"""Bytes of a parameter in float32, the precision in which models are measured."""
STORED = 2
"""Bytes of a parameter in most models' files."""
PRODUCTS_PER_TRIPLE = 27
"""Products of J with a vector that an iteration takes for a singular triple."""
DENSE_SHARE = 0.5
"""Of d products, what a whole Jacobian takes at most (see `accumulate`)."""
PROCESS = 400 * 2**20
"""Bytes that a process of Dask takes, with the one that watches over it."""
SAFETY = 3
"""How many times the expected duration a job may take."""
IMPORTS_MB = 1200
"""What Python, PyTorch, transformers and Snakemake's own process take."""


@dataclass(frozen=True)
class Needs:
    """What one job asks for.

    Attributes:
        mem_mb: Memory of the machine.
        minutes: When it may be stopped: three times what is expected, at least ten.
        expected: Minutes that it is expected to take, without waiting in a queue.
        threads: Cores.
        gpus: GPUs.
        gpu_mb: Memory that it takes on its GPU.
        disk_mb: What it leaves on disk.
    """

    mem_mb: int
    minutes: int
    expected: float
    threads: int = 1
    gpus: int = 0
    gpu_mb: int = 0
    disk_mb: int = 0


def parameters(study: Study, model: str) -> int:
    """Number of parameters of a model, as far as it can be told without downloading it."""
    section = study.models[model]
    if section.parameters is not None:
        return section.parameters
    if isinstance(section, TrainedModel):
        shape = section.train
        # A block has 12 d² weights; in and out there is a byte-level embedding each, or one of
        # patches and one of positions.
        ends = 2 * 257 if isinstance(shape, Training) else 3 * shape.patch**2 + shape.tokens
        return shape.hidden_size * (12 * shape.hidden_size * shape.blocks + ends)
    if isinstance(section, LocalModel):
        directory = list(section.trained_checkpoints().values())[-1]
        return count_parameters(directory) or UNKNOWN_SIZE
    return _fact(section.facts, "parameters") or UNKNOWN_SIZE


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
    if isinstance(shape, VisionTraining) and _on_gpu(study.extract.device):
        loading = LOADED * size * processes
        gpus = _on_device(study.extract.device, size, held, work / processes, 0, loading)
        return replace(gpus, gpus=processes, threads=processes)
    return _needs(processes * held, work / processes / FLOPS_PER_CORE, threads=processes)


def record_needs(study: Study, model: str, checkpoint: str | None = None) -> Needs:
    """Looking a checkpoint up, and downloading its weights where they lie elsewhere."""
    here = isinstance(study.models[model], TrainedModel | LocalModel) or checkpoint == INIT
    size = 0 if here else STORED * parameters(study, model)
    return _needs(0, size / DOWNLOAD, disk_mb=_mb(size))


def extract_needs(study: Study, model: str, dataset: str, checkpoint: str | None = None) -> Needs:
    """Extraction: the weights, and twice what a batch of prompts takes; products and SVDs.

    Args:
        study: The study.
        model: Which of its models.
        dataset: Which of its sets of prompts.
        checkpoint: Which; by default the last. It matters where weights are streamed: those drawn
            anew are held in memory whole.
    """
    size = parameters(study, model)
    dimension, blocks = _shape(study, model)
    options = study.extract_of(model, checkpoint or study.checkpoints(model)[-1])
    k, pairs, prompts = options.k_for(dimension), _pairs(options.tokens), _prompts(study, dataset)
    stream = study.streams(model, checkpoint or study.checkpoints(model)[-1])
    precision = 2 if options.dtype == "float64" else 1

    outside = min(size, _vocabulary(study, model) * dimension)
    held = min(size, outside + ceil(size / blocks)) if stream else size
    kept = products_kept(options)  # A, and its like for other variants and for overlaps
    each = 2 * bytes_per_prompt(dimension, blocks, k, USUAL_TOKENS, pairs, kept)
    if options.batch is not None:
        batch = options.batch
    elif _on_gpu(options.device):
        batch = prompts_at_once(precision * each, 2 * (GPU_MEMORY - precision * LOADED * held))
    else:
        batch = 8 if pairs == 1 else 1
    batch = min(batch, prompts)
    measured = precision * (LOADED * held + batch * each)

    # A product with J costs the block's parameters four times: there and back. All of J is up to
    # d / 2 of them and a full SVD, 20 d³; an iteration and the second sweep are fewer for a wide
    # model.
    iterated = (PRODUCTS_PER_TRIPLE + blocks) * k
    whole = DENSE_SHARE * dimension
    dense = whole <= iterated or options.method == "dense"
    work = 4.0 * size * (whole if dense else iterated)
    work += 20.0 * blocks * dimension**3 if dense else 0.0
    work += 2.0 * size * USUAL_TOKENS
    # Streamed weights are read for the states and for each of two sweeps, batch by batch.
    reads = 3 * ceil(prompts / batch) if stream else 1
    # As parts and in the store.
    stored = kept * (blocks * k) ** 2
    stored += 2 * blocks * dimension * k * options.vectors
    needs = _on_device(
        options.device,
        size,
        measured,
        precision * work * pairs * prompts,
        reading=reads * STORED * size / READ,
        # Weights pass through the machine's memory, and so do their files.
        loading=(LOADED + STORED) * held,
    )
    return replace(needs, disk_mb=_mb(2 * BYTES * stored * pairs * prompts))


def tokenwise_needs(study: Study, model: str) -> Needs:
    """Comparing tokens: the weights, the Jacobians to one token, and triples of all of them."""
    assert study.tokenwise is not None
    options, size = study.tokenwise, parameters(study, model)
    dimension, blocks = _shape(study, model)
    tokens = _pairs(options.tokens)
    used = min(blocks, len({block for pair in options.blocks for block in pair}))
    price = cost(
        size // blocks, dimension, tokens, len(options.blocks), used, min(options.k, dimension)
    )
    precision = 2 if options.dtype == "float64" else 1
    triples = 2 * price.jacobians * dimension * options.k
    measured = precision * LOADED * (size + 3 * tokens * dimension**2 + triples) + 3 * price.store
    needs = _on_device(
        options.device,
        size,
        measured,
        precision * price.flops * options.prompts,
        reading=STORED * size / READ,
        loading=(LOADED + STORED) * size,
    )
    return replace(needs, disk_mb=_mb(2 * price.store * options.prompts))


def damage_needs(study: Study, model: str, dataset: str, checkpoint: str | None = None) -> Needs:
    """Damage: every change of blocks on every text, from its first block to the logits."""
    assert study.damage is not None
    checkpoint = checkpoint or study.checkpoints(model)[-1]
    options, size = study.damage_of(model, checkpoint, dataset), parameters(study, model)
    dimension, blocks = _shape(study, model)
    head = min(size, _vocabulary(study, model) * dimension)
    through, heads = passes(changes(options, blocks), blocks)
    texts = min(options.prompts, _prompts(study, dataset))
    tokens = texts * USUAL_PROMPT + options.passages * options.window
    block = max(1, size - head) / blocks
    precision = 2 if options.dtype == "float64" else 1
    work = 2.0 * precision * tokens * (through * block + heads * head)
    held = min(size, 2 * head + ceil(2 * block)) if options.stream else size
    # Logits before and after, twice each: themselves and their logarithms.
    measured = precision * LOADED * (held + 4 * MOST_NUMBERS)
    batches = ceil((texts + options.passages) / 4)
    reads = STORED * block * through * batches if options.stream else STORED * size
    return _on_device(
        options.device,
        size,
        measured,
        work,
        reading=reads / READ,
        loading=(LOADED + STORED) * held,
    )


def score_needs(study: Study, model: str) -> Needs:
    """Scoring: the weights, and a pass over a few hundred thousand tokens; or copying a number."""
    section = study.models[model]
    if isinstance(section, TrainedModel) and isinstance(section.train, VisionTraining):
        size, images = parameters(study, model), TESTED * section.train.tokens
        work = 2.0 * size * images * study.score.test
        return _on_device(study.extract.device, size, LOADED * 4 * size, work, 0, LOADED * size)
    if section.takes != "text":
        return _needs(0, 0)
    questions = sum(task.limit or 10_000 for task in study.score.harness.values())
    if not (study.score.heldout or questions):
        return _needs(0, 0)
    size = parameters(study, model)
    return _on_device(
        study.extract.device,
        size,
        # A window of text has as many scores as the vocabulary for every token.
        LOADED * (size + 4 * USUAL_TOKENS * _vocabulary(study, model)),
        2.0 * size * (50_000 * (study.score.heldout + study.score.gap) + 800 * questions),
        reading=STORED * size / READ,
        loading=(LOADED + STORED) * size,
    )


def weight_spectra_needs(study: Study, model: str, checkpoint: str | None = None) -> Needs:
    """Spectra of weights: products and eigenvalues of one matrix after another, in float64."""
    size, (dimension, _) = parameters(study, model), _shape(study, model)
    checkpoint = checkpoint or study.checkpoints(model)[-1]
    in_files = study.streams(model, checkpoint, asked=True)
    held = 0 if in_files else (LOADED + STORED) * size
    # A matrix of an MLP, 4 d × d, in its own precision and in float64, and d × d with its like.
    matrices = 2 * (4 * 8 + 4 * 4 + 3 * 8) * dimension**2
    seconds = 10 * size * dimension / FLOPS_PER_CORE + STORED * size / READ
    return _needs(held + matrices, seconds)


def reduce_needs(study: Study, model: str, dataset: str) -> Needs:
    """Reducing: a few times A and its like of what is done at once, hundreds of prompts a minute.

    Of workers that are jobs of Slurm, what each of them takes: the memory of the job that hands
    their work out is the same.
    """
    dimension, blocks = _shape(study, model)
    one_prompt = 4 * (blocks * study.extract.k_for(dimension)) ** 2
    prompts, kept = _prompts(study, dataset), products_kept(study.extract)
    at_once = most_bytes_of_a_chunk(one_prompt)
    workers, each = study.reduce.workers, 5 * (1 + kept) * at_once
    # The five variants at every K read A about fifty times, at a gigabyte a second.
    seconds = 20 + prompts * (0.1 + 50 * one_prompt / 1e9) / workers
    match study.reduce.cluster:
        case "slurm":
            return _needs(each, seconds)
        case "local":
            return _needs(workers * (each + PROCESS), seconds, threads=workers)
        case "threads":
            return _needs(workers * each, seconds, threads=workers)


def _needs(memory: float, seconds: float, **others: int) -> Needs:
    return Needs(
        mem_mb=IMPORTS_MB + _mb(memory),
        minutes=max(10, ceil(SAFETY * seconds / 60)),
        expected=seconds / 60,
        **others,
    )


def _on_device(
    device: str, size: int, measured: float, flops: float, reading: float, loading: float
) -> Needs:
    """Needs of a job on a device: memory in bytes, `reading` in seconds."""
    threads = 1 if size < 3e8 else 4 if size < 3e9 else 8
    if _on_gpu(device):
        seconds = reading + flops / FLOPS_PER_GPU
        return _needs(loading, seconds, threads=threads, gpus=1, gpu_mb=_mb(measured))
    seconds = reading + flops / (FLOPS_PER_CORE * threads)
    return _needs(max(measured, loading), seconds, threads=threads)


def _on_gpu(device: str) -> bool:
    return device.startswith("cuda")


def _prompts(study: Study, dataset: str) -> int:
    return study.datasets[dataset].prompts or UNKNOWN_PROMPTS


def _pairs(tokens: Any) -> int:
    """How many Jacobians a long prompt has, for `extract.tokens`."""
    if isinstance(tokens, dict):
        return USUAL_TOKENS // int(tokens["every"]) + 1
    if isinstance(tokens, list):
        return len(tokens)
    return 1 if tokens in NAMED else USUAL_TOKENS


def _shape(study: Study, model: str) -> tuple[int, int]:
    """Dimension and number of blocks: told, read, or what a model of this size usually has."""
    section, size = study.models[model], parameters(study, model)
    if isinstance(section, TrainedModel):
        return section.train.hidden_size, section.train.blocks
    facts = section.facts
    if isinstance(section, LocalModel):
        facts = {"config": checkpoint_facts(list(section.trained_checkpoints().values())[-1])}
    dimension = _fact(facts, "dimension") or ceil(2.1 * size ** (1 / 3))
    blocks = _fact(facts, "blocks") or ceil(size / (12 * dimension**2))
    return dimension, max(2, blocks)


def _vocabulary(study: Study, model: str) -> int:
    section = study.models[model]
    if isinstance(section, TrainedModel):
        # Bytes, and a mark; of images there is none.
        return 257 if section.takes == "text" else 0
    if isinstance(section, LocalModel):
        directory = list(section.trained_checkpoints().values())[-1]
        return checkpoint_facts(directory)["vocabulary"] or LARGEST_VOCABULARY
    return LARGEST_VOCABULARY


def _fact(facts: Mapping[str, Any], name: str) -> int | None:
    """A number that a model's facts tell: its own configuration's, else a table's."""
    for source in ("config", "table"):
        told = facts.get(source)
        value = told.get(name) if isinstance(told, Mapping) else None
        if isinstance(value, int | float) and value > 0:
            return int(value)
    return None


def _mb(count: float) -> int:
    return ceil(count / 2**20)
