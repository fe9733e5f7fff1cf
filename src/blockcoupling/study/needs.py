"""What a job asks for: memory, minutes, threads and GPUs, from its model's size.

Estimates decide where a scheduler puts a job and when it may kill it, not how the job runs. Memory
is on the safe side. Time is work by counts at the rates of a machine (see `rates.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from blockcoupling.config import steps
from blockcoupling.config.models import INIT, LocalModel, TrainedModel
from blockcoupling.config.study import Study
from blockcoupling.config.vision import VisionTraining
from blockcoupling.jacobian.work import SMALL_DIMENSION, dense_work, iterated_work
from blockcoupling.measurement.memory import (
    BATCH_BYTES,
    BYTES,
    MOST_PROMPTS,
    bytes_per_prompt,
    products_kept,
    prompts_within,
)
from blockcoupling.measurement.token_cost import Cost, cost
from blockcoupling.reduce.chunks import most_bytes_of_a_chunk
from blockcoupling.study.by_name import call
from blockcoupling.study.rates import Processor, Rates, rates_of
from blockcoupling.study.sizes import (
    USUAL_TOKENS,
    block_parameters,
    bytes_per_token,
    pairs_of,
    parameters,
    prompts_of,
    shape_of,
    tokens_of,
    vocabulary_of,
)

TESTED = 10_000
"""Images held out, as CIFAR-10 has."""
HELDOUT_BYTES = 34_000
"""Built-in held-out text."""
HELDOUT_CALLS = 50
"""Forward passes that it takes in windows."""
DOWNLOAD = 1e7
"""Bytes a second."""
LOADED = 4
"""Bytes of a parameter in float32, the precision in which models are measured."""
STORED = 2
"""Bytes of a parameter in most models' files."""
DENSE_SHARE = 0.42
"""Share of d products that accumulating a Jacobian takes (docs/benchmarks.md: 0.39 to 0.45)."""
DECOMPOSITION = 25
"""Operations, times d³, of all singular values or eigenvalues of a Jacobian."""
CONVERTING = 8
"""How many times longer than reading memory it takes to load weights, or to tabulate numbers."""
TABULATED = 50
"""How often the variants at every K read A."""
PROCESS = 400 * 2**20
"""Bytes that a process of Dask takes, with the one that watches over it."""
SAFETY = 3
"""How many times the expected duration a job may take."""
SNAKEMAKE_MB = 200
"""What Snakemake's own process takes."""
MARGIN = 1.5
"""Memory of Python with its packages in use, compared with a process that has imported them."""

# What takes time in small models, however fast products are, in calls of a small block forward and
# backward (rate `call`). Counted on the built-in study.
CALLS_PER_BLOCK = 11.0
"""Recording, verifying and decomposing a block at a prompt."""
CALLS_FORWARD = 0.4
CALLS_PER_RECORD = 20
"""Looking a checkpoint up, or copying it from a state."""
CALLS_PER_STORE = 330
"""Opening a model and its prompts, and joining a store."""
CALLS_PER_TABLES = 400
"""Opening a store, and writing all tables of it."""
CALLS_PER_PROMPT_TABULATED = 48
CALLS_PER_SCORE = 220
CALLS_PER_JACOBIAN_COMPARED = 0.8
CALLS_PER_MATRIX = 5
"""Fitting a power law to the spectrum of a matrix of weights."""


@dataclass(frozen=True)
class Needs:
    """What one job asks for.

    Attributes:
        mem_mb: Memory of the machine.
        minutes: When it may be stopped: three times what is expected, at least ten.
        expected: Minutes that it is expected to take, without waiting in a queue.
        starting: Minutes of these in which its process starts; jobs that share one start once.
        threads: Cores.
        gpus: GPUs.
        gpu_mb: Memory that it takes on its GPU.
        disk_mb: What it leaves on disk.
    """

    mem_mb: int
    minutes: int
    expected: float
    starting: float = 0.0
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
    found: Needs = nothing(study) if where is None else call(where, study, wildcards)
    return found


def nothing(study: Study) -> Needs:
    """What a job without an estimate asks for."""
    return on_machine(rates_of(study).processor, 0, 0)


def record_needs(study: Study, model: str, checkpoint: str | None = None) -> Needs:
    """Looking a checkpoint up, and downloading its weights where they lie elsewhere."""
    here = isinstance(study.models[model], TrainedModel | LocalModel) or checkpoint == INIT
    size = 0 if here else STORED * parameters(study, model)
    processor = rates_of(study).processor
    seconds = size / DOWNLOAD + CALLS_PER_RECORD * processor.call
    return on_machine(processor, 0, seconds, processor.start, disk_mb=megabytes(size))


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
    # A batch of the default size may fill what it is bounded by: as much for a larger model.
    largest = min(options.batch or MOST_PROMPTS, prompts) * each
    if options.batch is None:
        largest = min(largest, max(each, BATCH_BYTES))
    measured = precision * (LOADED * held + 2 * largest)

    rates, gpu = rates_of(study), on_gpu(options.device)
    length = tokens_of(study, model, dataset)
    each = bytes_per_prompt(dimension, blocks, k, length, pairs_of(options.tokens, length), kept)
    batch = min(options.batch or prompts_within(BATCH_BYTES, each), prompts)
    vectors = batch * max(4, min(8, 64 // batch))
    dense = dense_work(DENSE_SHARE * dimension)
    iterated = iterated_work(dimension, blocks, k, vectors, on_cpu=not gpu)
    whole = options.method == "dense" or (
        options.method == "auto" and (dimension <= SMALL_DIMENSION or dense <= iterated)
    )
    work = dense if whole else iterated
    if not gpu:
        work *= rates.processor.dense if whole else rates.processor.iterated
    flops = 2.0 * block_parameters(study, model) * blocks * work
    if options.eigenvalues or options.cumulative or (options.full and dimension > SMALL_DIMENSION):
        flops += DECOMPOSITION * blocks * dimension**3
    measurements = prompts * pairs_of(options.tokens, length)
    measurements *= len(options.parts) + options.detached
    # Two forward passes: of the whole prompt, and of its last token.
    total = measurements * flops + prompts * 4.0 * size * length
    # Streamed weights are read for the states and for each of two sweeps, batch by batch.
    reads = 3 * ceil(prompts / batch) if stream else 1
    stored = kept * (blocks * k) ** 2
    stored += 2 * blocks * dimension * k * options.vectors
    disk = BYTES * stored * pairs * prompts
    needs = on_device(
        rates,
        options.device,
        size,
        measured,
        total,
        # On a GPU the launches of kernels are in the count of products.
        calls=CALLS_PER_STORE + (0 if gpu else CALLS_PER_BLOCK * blocks * measurements),
        seconds=reads * reading(rates.processor, size) + disk / rates.processor.write,
        # Weights pass through the machine's memory, and so do their files.
        loading=(LOADED + STORED) * held,
        double=options.dtype == "float64",
    )
    return replace(needs, disk_mb=megabytes(disk))


def tokenwise_needs(study: Study, model: str, dataset: str | None = None) -> Needs:
    """Comparing tokens: the weights, the Jacobians to one token, and triples of all of them."""
    assert study.tokenwise is not None
    options, size = study.tokenwise, parameters(study, model)
    dimension, blocks = shape_of(study, model)
    used = min(blocks, len({block for pair in options.blocks for block in pair}))

    def price(tokens: int) -> Cost:
        pairs, k = len(options.blocks), min(options.k, dimension)
        return cost(size // blocks, dimension, tokens, pairs, used, k)

    most = price(pairs_of(options.tokens))
    length = USUAL_TOKENS if dataset is None else tokens_of(study, model, dataset)
    usual = price(pairs_of(options.tokens, length))
    precision = 2 if options.dtype == "float64" else 1
    triples = 2 * most.jacobians * dimension * options.k
    tokens = pairs_of(options.tokens)
    measured = precision * LOADED * (size + 3 * tokens * dimension**2 + triples) + 3 * most.store
    prompts = (
        options.prompts if dataset is None else min(options.prompts, prompts_of(study, dataset))
    )
    rates = rates_of(study)
    needs = on_device(
        rates,
        options.device,
        size,
        measured,
        usual.flops * prompts,
        calls=CALLS_PER_STORE + CALLS_PER_JACOBIAN_COMPARED * usual.jacobians * prompts,
        seconds=reading(rates.processor, size) + usual.store * prompts / rates.processor.write,
        loading=(LOADED + STORED) * size,
        double=options.dtype == "float64",
    )
    return replace(needs, disk_mb=megabytes(most.store * prompts))


def score_needs(study: Study, model: str) -> Needs:
    """Scoring: the weights, and a pass over the held-out text; or copying a number."""
    section, rates = study.models[model], rates_of(study)
    size, (_, blocks) = parameters(study, model), shape_of(study, model)
    if isinstance(section, TrainedModel) and isinstance(section.train, VisionTraining):
        flops = 2.0 * size * TESTED * section.train.tokens * study.score.test
        return on_device(
            rates,
            study.extract.device,
            size,
            LOADED * 4 * size,
            flops,
            calls=CALLS_FORWARD * blocks,
            loading=LOADED * size,
        )
    if section.takes != "text":
        return nothing(study)
    questions = sum(task.limit or 10_000 for task in study.score.harness.values())
    if not (study.score.heldout or questions):
        return nothing(study)
    passes = study.score.heldout + study.score.gap
    tokens = HELDOUT_BYTES / bytes_per_token(study, model) * passes + 800 * questions
    return on_device(
        rates,
        study.extract.device,
        size,
        # A window of text has as many scores as the vocabulary for every token.
        LOADED * (size + 4 * USUAL_TOKENS * vocabulary_of(study, model)),
        2.0 * size * tokens,
        calls=CALLS_PER_SCORE + CALLS_FORWARD * blocks * (HELDOUT_CALLS * passes + questions),
        seconds=reading(rates.processor, size),
        loading=(LOADED + STORED) * size,
    )


def weight_spectra_needs(study: Study, model: str, checkpoint: str | None = None) -> Needs:
    """Spectra of weights: products and eigenvalues of one matrix after another, in float64."""
    size, (dimension, blocks) = parameters(study, model), shape_of(study, model)
    checkpoint = checkpoint or study.checkpoints(model)[-1]
    in_files = study.streams(model, checkpoint, asked=True)
    held = 0 if in_files else (LOADED + STORED) * size
    # A matrix of an MLP, 4 d × d, in its own precision and in float64, and d × d with its like.
    matrices = 2 * (4 * 8 + 4 * 4 + 3 * 8) * dimension**2
    processor = rates_of(study).processor
    seconds = 10 * size * dimension / processor.flops_float64 + reading(processor, size)
    seconds += 6 * blocks * CALLS_PER_MATRIX * processor.call
    return on_machine(processor, held + matrices, seconds, processor.start)


def reduce_needs(study: Study, model: str, dataset: str) -> Needs:
    """Reducing: a few times A and its like of what is done at once.

    Of workers that are jobs of Slurm, what each of them takes: the memory of the job that hands
    their work out is the same.
    """
    dimension, blocks = shape_of(study, model)
    one_prompt = 4 * (blocks * study.extract.k_for(dimension)) ** 2
    prompts, kept = prompts_of(study, dataset), products_kept(study.extract)
    at_once = most_bytes_of_a_chunk(one_prompt)
    workers, each = study.reduce.workers, 5 * (1 + kept) * at_once
    processor = rates_of(study).processor
    reads = TABULATED * one_prompt * CONVERTING / processor.memory
    seconds = CALLS_PER_TABLES * processor.call
    seconds += prompts * (CALLS_PER_PROMPT_TABULATED * processor.call + reads) / workers
    # A matrix of blocks for each variant and K; the tables are smaller.
    options = study.extract_of(model, study.checkpoints(model)[-1])
    matrices = len(study.reduce.variants) * len(study.reduce.k) * blocks**2
    disk = megabytes(BYTES * matrices * pairs_of(options.tokens) * prompts)
    memory, threads = workers * each, workers
    match study.reduce.cluster:
        case "slurm":
            memory, threads = each, 1
        case "local":
            memory = workers * (each + PROCESS)
    return on_machine(
        processor, memory, seconds, processor.start_tables, threads=threads, disk_mb=disk
    )


def reading(processor: Processor, size: float) -> float:
    """Seconds that loading so many parameters takes: from their files, and into float32."""
    return STORED * size / processor.read + LOADED * size * CONVERTING / processor.memory


def on_machine(
    processor: Processor, memory: float, seconds: float, start: float = 0.0, **others: int
) -> Needs:
    """Needs of a job on processors.

    Args:
        processor: Its rates.
        memory: Bytes, without those of Python and its packages.
        seconds: Of its work.
        start: Seconds until it begins.
        others: Fields of `Needs`.
    """
    imports = ceil(MARGIN * processor.start_mb) + SNAKEMAKE_MB
    return Needs(
        mem_mb=imports + megabytes(memory),
        minutes=max(10, ceil(SAFETY * (start + seconds) / 60)),
        expected=(start + seconds) / 60,
        starting=start / 60,
        **others,
    )


def on_device(
    rates: Rates,
    device: str,
    size: float,
    measured: float,
    flops: float,
    *,
    calls: float = 0.0,
    seconds: float = 0.0,
    loading: float = 0.0,
    double: bool = False,
) -> Needs:
    """Needs of a job that loads torch, on a device.

    Args:
        rates: Of processor and GPU.
        device: torch's name of it.
        size: Parameters of the model, which decide the number of threads.
        measured: Bytes that it takes there.
        flops: Operations in matrix products.
        calls: What takes time besides: calls of a small block, on the machine.
        seconds: Further seconds, of the machine.
        loading: Bytes that weights take on their way.
        double: Whether products are in float64.
    """
    threads = 1 if size < 3e8 else 4 if size < 3e9 else 8
    processor, gpu = rates.processor, rates.gpu
    seconds += calls * processor.call
    if on_gpu(device):
        seconds += flops / (gpu.flops_float64 if double else gpu.flops) + loading / gpu.copy_to
        more = {"gpus": 1, "gpu_mb": megabytes(measured)}
        return on_machine(processor, loading, seconds, processor.start, threads=threads, **more)
    cores = 1 + processor.shared * (min(threads, processor.cores) - 1)
    seconds += flops / (cores * (processor.flops_float64 if double else processor.flops))
    return on_machine(processor, max(measured, loading), seconds, processor.start, threads=threads)


def on_gpu(device: str) -> bool:
    """Whether a job on this device asks for a GPU."""
    return device.startswith("cuda")


def megabytes(count: float) -> int:
    """A number of bytes in MB of 2^20 bytes."""
    return ceil(count / 2**20)
