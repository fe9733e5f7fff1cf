"""Peak memory of one measurement, in a process of its own: python -m benchmarks.memory CASE.

The process is started with MALLOC_MMAP_THRESHOLD_ set, so that freed arrays leave it at once and
its resident size is what is in use.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.ours import measure
from benchmarks.peak import PeakMemory
from benchmarks.shapes import LARGE, SMALL, TINY, prompts, random_llama


def in_own_process(case: str, *arguments: str) -> dict:
    """Run a case in a process of its own and return what it printed."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.memory", case, *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def dense(shape_name: str, blocks: int, k: int) -> dict:
    """Peak above weights and context of the dense path, in Jacobians of 4 d² bytes."""
    shape = {"small": SMALL, "large": LARGE, "tiny": TINY}[shape_name]
    model = random_llama(shape, blocks=blocks)
    ids = prompts(1, 64)
    measure(model, ids, k, "dense")  # loads libraries, starts threads
    with PeakMemory(torch.device("cpu")) as peak:
        measure(model, ids, k, "dense")
    return {"bytes": peak.bytes, "jacobians": peak.bytes / (4 * shape.dimension**2)}


def peak_resident() -> int:
    """Peak resident memory of this process in bytes (Linux; getrusage counts the parent's too)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def streamed(directory: str, k: int) -> dict:
    """Peak resident memory of the whole process measuring a streamed model, and its results."""
    import blockcoupling as bc
    from blockcoupling.transformer.streaming import stream_model

    ids = prompts(1, 64)[0]
    model = stream_model(Path(directory))
    ds = bc.measure(model, lambda _: ids, ["random"], k)
    return {
        "bytes": peak_resident(),
        "S": ds["S"].values[0, 0].tolist(),
        "m": bc.miscoupling(ds, k=k).values[0, 0].tolist(),
    }


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if name == "dense":
        print(json.dumps(dense(rest[0], int(rest[1]), int(rest[2]))))
    else:
        print(json.dumps(streamed(rest[0], int(rest[1]))))
