"""What a job asks for: memory, minutes, threads and GPUs, from its model's size.

Estimates are rough and on the safe side: they decide where a scheduler puts a job and when it may
kill it, not how the job runs. Rates are those of one core of an ordinary server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from blockcoupling.config import steps
from blockcoupling.config.models import INIT, LocalModel, TrainedModel
from blockcoupling.config.study import Study
from blockcoupling.config.vision import VisionTraining
from blockcoupling.measurement.memory import (
    BATCH_BYTES,
    BYTES,
    MOST_PROMPTS,
    bytes_per_prompt,
    products_kept,
    prompts_within,
)
from blockcoupling.measurement.token_cost import cost
from blockcoupling.reduce.chunks import most_bytes_of_a_chunk
from blockcoupling.study.by_name import call
from blockcoupling.study.sizes import (
    USUAL_TOKENS,
    pairs_of,
    parameters,
    prompts_of,
    shape_of,
    vocabulary_of,
)

TESTED = 10_000
"""Images held out, as CIFAR-10 has."""

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
"""Largest share of d products that a dense Jacobian takes (see `accumulate`)."""
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


def needs_of(study: Study, name: str, wildcards: Mapping[str, str]) -> Needs:
    """What a job of a step asks for.

    Args:
        study: The study.
        name: Name of the step (see `config.steps`); one without an estimate takes next to nothing.
        wildcards: What the job is for: model, checkpoint, dataset, as far as the step has them.
    """
    where = steps.step(name).needs
    found: Needs = on_machine(0, 0) if where is None else call(where, study, wildcards)
    return found


def record_needs(study: Study, model: str, checkpoint: str | None = None) -> Needs:
    """Looking a checkpoint up, and downloading its weights where they lie elsewhere."""
    here = isinstance(study.models[model], TrainedModel | LocalModel) or checkpoint == INIT
    size = 0 if here else STORED * parameters(study, model)
    return on_machine(0, size / DOWNLOAD, disk_mb=megabytes(size))


def extract_needs(study: Study, model: str, dataset: str, checkpoint: str | None = None) -> Needs:
    """Extraction: the weights, and twice what a batch of prompts takes; products and SVDs.

    Args:
        study: The study.
        model: One of its models.
        dataset: One of its datasets.
        checkpoint: By default the last. It matters if weights are streamed: re-initialised weights
            are held in memory as a whole.
    """
    size = parameters(study, model)
    dimension, blocks = shape_of(study, model)
    options = study.extract_of(model, checkpoint or study.checkpoints(model)[-1])
    k, pairs, prompts = (
        options.k_for(dimension),
        pairs_of(options.tokens),
        prompts_of(study, dataset),
    )
    stream = study.streams(model, checkpoint or study.checkpoints(model)[-1])
    precision = 2 if options.dtype == "float64" else 1

    outside = min(size, vocabulary_of(study, model) * dimension)
    held = min(size, outside + ceil(size / blocks)) if stream else size
    kept = products_kept(options)  # A, and its like for other variants and for overlaps
    each = bytes_per_prompt(dimension, blocks, k, USUAL_TOKENS, pairs, kept)
    batch = min(options.batch or prompts_within(BATCH_BYTES, each), prompts)
    # A batch of the default size may fill what it is bounded by: as much for a larger model.
    largest = min(options.batch or MOST_PROMPTS, prompts) * each
    if options.batch is None:
        largest = min(largest, max(each, BATCH_BYTES))
    measured = precision * (LOADED * held + 2 * largest)

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
    stored = kept * (blocks * k) ** 2
    stored += 2 * blocks * dimension * k * options.vectors
    needs = on_device(
        options.device,
        size,
        measured,
        precision * work * pairs * prompts,
        reading=reads * STORED * size / READ,
        # Weights pass through the machine's memory, and so do their files.
        loading=(LOADED + STORED) * held,
    )
    return replace(needs, disk_mb=megabytes(BYTES * stored * pairs * prompts))


def tokenwise_needs(study: Study, model: str) -> Needs:
    """Comparing tokens: the weights, the Jacobians to one token, and triples of all of them."""
    assert study.tokenwise is not None
    options, size = study.tokenwise, parameters(study, model)
    dimension, blocks = shape_of(study, model)
    tokens = pairs_of(options.tokens)
    used = min(blocks, len({block for pair in options.blocks for block in pair}))
    price = cost(
        size // blocks, dimension, tokens, len(options.blocks), used, min(options.k, dimension)
    )
    precision = 2 if options.dtype == "float64" else 1
    triples = 2 * price.jacobians * dimension * options.k
    measured = precision * LOADED * (size + 3 * tokens * dimension**2 + triples) + 3 * price.store
    needs = on_device(
        options.device,
        size,
        measured,
        precision * price.flops * options.prompts,
        reading=STORED * size / READ,
        loading=(LOADED + STORED) * size,
    )
    return replace(needs, disk_mb=megabytes(price.store * options.prompts))


def score_needs(study: Study, model: str) -> Needs:
    """Scoring: the weights, and a pass over a few hundred thousand tokens; or copying a number."""
    section = study.models[model]
    if isinstance(section, TrainedModel) and isinstance(section.train, VisionTraining):
        size, images = parameters(study, model), TESTED * section.train.tokens
        work = 2.0 * size * images * study.score.test
        return on_device(study.extract.device, size, LOADED * 4 * size, work, 0, LOADED * size)
    if section.takes != "text":
        return on_machine(0, 0)
    questions = sum(task.limit or 10_000 for task in study.score.harness.values())
    if not (study.score.heldout or questions):
        return on_machine(0, 0)
    size = parameters(study, model)
    return on_device(
        study.extract.device,
        size,
        # A window of text has as many scores as the vocabulary for every token.
        LOADED * (size + 4 * USUAL_TOKENS * vocabulary_of(study, model)),
        2.0 * size * (50_000 * (study.score.heldout + study.score.gap) + 800 * questions),
        reading=STORED * size / READ,
        loading=(LOADED + STORED) * size,
    )


def weight_spectra_needs(study: Study, model: str, checkpoint: str | None = None) -> Needs:
    """Spectra of weights: products and eigenvalues of one matrix after another, in float64."""
    size, (dimension, _) = parameters(study, model), shape_of(study, model)
    checkpoint = checkpoint or study.checkpoints(model)[-1]
    in_files = study.streams(model, checkpoint, asked=True)
    held = 0 if in_files else (LOADED + STORED) * size
    # A matrix of an MLP, 4 d × d, in its own precision and in float64, and d × d with its like.
    matrices = 2 * (4 * 8 + 4 * 4 + 3 * 8) * dimension**2
    seconds = 10 * size * dimension / FLOPS_PER_CORE + STORED * size / READ
    return on_machine(held + matrices, seconds)


def reduce_needs(study: Study, model: str, dataset: str) -> Needs:
    """Reducing: a few times A and its like of what is done at once, hundreds of prompts a minute.

    Of workers that are jobs of Slurm, what each of them takes: the memory of the job that hands
    their work out is the same.
    """
    dimension, blocks = shape_of(study, model)
    one_prompt = 4 * (blocks * study.extract.k_for(dimension)) ** 2
    prompts, kept = prompts_of(study, dataset), products_kept(study.extract)
    at_once = most_bytes_of_a_chunk(one_prompt)
    workers, each = study.reduce.workers, 5 * (1 + kept) * at_once
    # The five variants at every K read A about fifty times, at a gigabyte a second.
    seconds = 20 + prompts * (0.1 + 50 * one_prompt / 1e9) / workers
    # A matrix of blocks for each variant and K; the tables are smaller.
    options = study.extract_of(model, study.checkpoints(model)[-1])
    matrices = len(study.reduce.variants) * len(study.reduce.k) * blocks**2
    disk = megabytes(BYTES * matrices * pairs_of(options.tokens) * prompts)
    match study.reduce.cluster:
        case "slurm":
            return on_machine(each, seconds, disk_mb=disk)
        case "local":
            memory = workers * (each + PROCESS)
            return on_machine(memory, seconds, threads=workers, disk_mb=disk)
        case "threads":
            return on_machine(workers * each, seconds, threads=workers, disk_mb=disk)


def on_machine(memory: float, seconds: float, **others: int) -> Needs:
    """Needs of a job on processors: memory in bytes; `others` are fields of `Needs`."""
    return Needs(
        mem_mb=IMPORTS_MB + megabytes(memory),
        minutes=max(10, ceil(SAFETY * seconds / 60)),
        expected=seconds / 60,
        **others,
    )


def on_device(
    device: str, size: int, measured: float, flops: float, reading: float, loading: float
) -> Needs:
    """Needs of a job on a device: memory in bytes, `reading` in seconds."""
    threads = 1 if size < 3e8 else 4 if size < 3e9 else 8
    if on_gpu(device):
        seconds = reading + flops / FLOPS_PER_GPU
        return on_machine(loading, seconds, threads=threads, gpus=1, gpu_mb=megabytes(measured))
    seconds = reading + flops / (FLOPS_PER_CORE * threads)
    return on_machine(max(measured, loading), seconds, threads=threads)


def on_gpu(device: str) -> bool:
    """Whether a job on this device asks for a GPU."""
    return device.startswith("cuda")


def megabytes(count: float) -> int:
    """A number of bytes in MB of 2^20 bytes."""
    return ceil(count / 2**20)
