"""Measuring the rates of this machine, in seconds (see `study.rates`).

Work of one core is timed in seconds of the processor, so that other work on the machine matters
little. Everything is random and of fixed size: no model and no file of the user is read.
"""

from __future__ import annotations

import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from blockcoupling.errors import UserError
from blockcoupling.jacobian.work import dense_work, iterated_work
from blockcoupling.measurement.measure import measure
from blockcoupling.store.checksums import write_store
from blockcoupling.study.needs import CALLS_PER_BLOCK, DENSE_SHARE
from blockcoupling.study.rates import Accelerator, Measured, Processor

logger = logging.getLogger(__name__)

MATRIX = (768, 2048)
"""Widths of the products: those of a small model's MLP."""
WIDTH = 768
"""Of the blocks whose Jacobians are timed."""
BUSY = 0.5
"""What a further core adds at least, if nothing else runs."""
FILE_BYTES = 2**27
STORE_BYTES = 2**24
TORCH = "blockcoupling.measurement.extract, transformers.models.llama.modeling_llama"
TABLES = "blockcoupling.reduce.tables, pyarrow.parquet, dask.array, zarr"


def calibrated(directory: Path, device: str) -> dict[str, Measured]:
    """Rates of this machine: of its processor, of its GPU, or of both.

    Args:
        directory: where files are written and read, and removed again.
        device: "cpu", a GPU by torch's name, or "auto" for what there is.

    Raises:
        UserError: torch does not see this device.
    """
    gpu = "cuda" if device == "auto" and torch.cuda.is_available() else device
    if gpu not in ("auto", "cpu") and not (gpu.startswith("cuda") and torch.cuda.is_available()):
        raise UserError(f"--device {device}: torch sees no such GPU here; choose cpu, cuda or auto")
    found: dict[str, Measured] = {}
    if device in ("auto", "cpu"):
        found["processor"] = measured_processor(directory)
    if gpu.startswith("cuda"):
        found["gpu"] = measured_gpu(gpu)
    return found


def measured_processor(directory: Path) -> Processor:
    """Rates of this machine's processor, memory and disk.

    Args:
        directory: where files are written and read, and removed again.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        flops = {dtype: _flops("cpu", dtype) for dtype in (torch.float32, torch.float64)}
        call = _call()
        numbers = torch.ones(2**26)
        rates: dict[str, Any] = {
            "flops": flops[torch.float32],
            "flops_float64": flops[torch.float64],
            "shared": _shared(_cores()),
            "memory": numbers.nbytes / _least(numbers.sum),
            "call": call,
            "dense": _jacobian("dense", flops[torch.float32], call),
            "iterated": _jacobian("krylov", flops[torch.float32], call),
        }
    finally:
        torch.set_num_threads(threads)
    rates["read"], rates["write"] = _files(directory)
    rates["start"], megabytes = _start(TORCH)
    rates["start_tables"], _ = _start(TABLES)
    if megabytes:  # otherwise this system does not tell
        rates["start_mb"] = megabytes
    here = _here(_processor_name()) | {"cores": _cores()}
    return Processor.model_validate(here | _rounded(rates))


def measured_gpu(device: str) -> Accelerator:
    """Rates of a GPU of this machine."""
    numbers = torch.ones(2**28, device=device)
    there = torch.ones(2**26).pin_memory()
    rates = {
        "flops": _flops(device, torch.float32),
        "flops_float64": _flops(device, torch.float64),
        "memory": numbers.nbytes / _least(lambda: numbers.sum().item(), time.perf_counter),
        "copy_to": there.nbytes / _least(lambda: there.to(device).sum().item(), time.perf_counter),
    }
    here = _here(torch.cuda.get_device_name(device))
    return Accelerator.model_validate(here | _rounded(rates))


def _least(
    work: Callable[[], object], clock: Callable[[], float] = time.process_time, repeats: int = 5
) -> float:
    """Seconds of the fastest of several repeats, after a first one that warms up."""
    work()
    taken = []
    for _ in range(repeats):
        start = clock()
        work()
        taken.append(clock() - start)
    return max(min(taken), 1e-9)


def _flops(device: str, dtype: torch.dtype) -> float:
    """Operations a second in a matrix product."""
    rows, columns = MATRIX if device == "cpu" else (4096, 16384)
    a = torch.ones(rows, rows, dtype=dtype, device=device)
    b = torch.ones(rows, columns, dtype=dtype, device=device)
    if device == "cpu":
        return 2 * rows * rows * columns / _least(lambda: a @ b)

    # To the host, which waits for it: what is launched returns at once.
    def work() -> float:
        return (a @ b)[0, 0].item()

    return 2 * rows * rows * columns / _least(work, time.perf_counter)


def _shared(cores: int) -> float:
    """What a further core adds to a matrix product."""
    if cores == 1:
        return 1.0
    together = min(cores, 8)
    a, b = torch.ones(1024, 1024), torch.ones(1024, 1024)
    alone = _least(lambda: a @ b, time.perf_counter, 40)
    torch.set_num_threads(together)
    several = _least(lambda: a @ b, time.perf_counter, 40)
    torch.set_num_threads(1)
    shared = (alone / several - 1) / (together - 1)
    if shared < BUSY:
        logger.warning(
            "further cores add little to a product: other work runs on this machine, or its cores "
            "are shared. Measure it again when it is idle"
        )
    return min(1.0, max(0.05, shared))


def _llama(dimension: int, blocks: int, heads: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=257,
        hidden_size=dimension,
        intermediate_size=8 * dimension // 3,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def _call() -> float:
    """Seconds of a small block, forward and backward."""
    blocks = 4
    model, ids = _llama(64, blocks, 4), torch.arange(32)[None]

    def work() -> None:
        model(input_ids=ids, labels=ids).loss.backward()

    return _least(work) / blocks


def _jacobian(method: str, flops: float, call: float) -> float:
    """Time of a block's singular triples, compared with their count of products."""
    dimension, blocks, k, prompts = WIDTH, 2, 10, 4
    model = _llama(dimension, blocks, dimension // 64).requires_grad_(False)
    texts = [f"Prompt number {n} is about the capital of France" for n in range(prompts)]

    def work() -> None:
        measure(model, lambda text: [ord(each) for each in text], texts, k=k, method=method)

    products = (
        dense_work(DENSE_SHARE * dimension)
        if method == "dense"
        else iterated_work(dimension, blocks, k, 8 * prompts, on_cpu=True)
    )
    parameters = sum(each.numel() for each in model.model.layers[0].parameters())
    counted = 2 * parameters * products / flops
    return max(
        0.1, (_least(work, repeats=3) / (prompts * blocks) - CALLS_PER_BLOCK * call) / counted
    )


def _files(directory: Path) -> tuple[float, float]:
    """Bytes a second of reading a file, and of writing a store."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".calibrate-", dir=directory) as place:
        file = Path(place) / "numbers"
        file.write_bytes(os.urandom(FILE_BYTES))
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            if hasattr(os, "posix_fadvise"):  # otherwise memory answers
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            while stream.read(2**22):
                pass
            read = FILE_BYTES / (time.perf_counter() - start)
        values = np.random.default_rng(0).normal(size=STORE_BYTES // 4).astype("float32")
        ds = xr.Dataset({"numbers": ("row", values)})
        names = iter(range(10))
        write = STORE_BYTES / _least(
            lambda: write_store(ds, Path(place) / f"{next(names)}.zarr"), time.perf_counter, 2
        )
    return read, write


def _start(modules: str) -> tuple[float, float]:
    """Seconds of the processor that a process takes to import these, and its memory in MB."""
    tell = "print(*(each.split()[1] for each in open('/proc/self/status') if 'VmHWM' in each))"
    tell = tell if Path("/proc/self/status").is_file() else ""
    taken = []
    for _ in range(2):
        before = _of_children()
        program = [sys.executable, "-c", f"import {modules}\n{tell}"]
        said = subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()
        taken.append((_of_children() - before, int(said[-1]) / 2**10 if said else 0.0))
    return min(taken)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _here(device: str) -> dict[str, Any]:
    return {
        "host": platform.node() or "this machine",
        "device": device,
        "day": str(date.today()),
        "torch": torch.__version__,
    }


def _processor_name() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use: in a job, those that it was given."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rounded(rates: dict[str, float]) -> dict[str, float]:
    """Three digits, which is more than they repeat to."""
    return {name: float(f"{value:.3g}") for name, value in rates.items()}
