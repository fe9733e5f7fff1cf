"""make bench: the released algorithm, the dense path and the matrix-free one, in one run.

python -m benchmarks            about 25 minutes on two cores; writes docs/benchmarks.md and a plot
python -m benchmarks --smoke    the same on a tiny model, in seconds; writes nothing
python -m benchmarks --by-hand  only the comparison with the Jacobians written by hand
python -m benchmarks --gpu      Llama-3 shaped blocks on an accelerator, in a minute; writes
                                docs/gpu.md. torch, transformers and NumPy are enough (run it
                                from the sources: PYTHONPATH=src)
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import Floor, measure_floor
from benchmarks.memory import in_own_process
from benchmarks.ours import measure, miscoupling
from benchmarks.reference import released
from benchmarks.shapes import (
    LARGE,
    LLAMA_8B,
    LLAMA_70B,
    SMALL,
    TINY,
    Shape,
    prompts,
    random_llama,
)

CPU = torch.device("cpu")


@dataclass
class Row:
    """One line of the table; seconds are of one batch, ratios of one prompt."""

    shape: str
    method: str
    tokens: int
    k: int
    batch: int
    seconds: float
    without_forward: float
    to_baseline: float | None = None
    to_floor: float | None = None
    products: float | None = None


class Bench:
    """Collects the rows of one shape.

    Args:
        shape: what is measured.
        repeats: how often; medians are kept.
    """

    def __init__(self, shape: Shape, repeats: int) -> None:
        self.shape, self.repeats = shape, repeats
        self.model = random_llama(shape)
        layers = list(self.model.base_model.layers)
        self.floor: Floor = measure_floor(layers[0], shape.dimension, CPU)
        self.rows: list[Row] = []
        self.baselines: dict[int, float] = {}

    def baseline(self, tokens: int, k: int, measured: int) -> None:
        """Time the released algorithm on the first `measured` blocks, scaled to all of them."""
        layers = list(self.model.base_model.layers)
        _, forward, rest = released(
            self.model, layers, prompts(1, tokens)[0], k, list(range(measured))
        )
        scaled = rest * self.shape.blocks / measured
        self.baselines[tokens] = forward + scaled
        name = "released" + ("" if measured == self.shape.blocks else f" ({measured} blocks)")
        self._add(Row(self.shape.name, name, tokens, k, 1, forward + scaled, scaled))

    def ours(self, method: str, tokens: int, k: int, batch: int = 1, repeats: int = 0) -> Row:
        """Time this package on all blocks."""
        runs = [
            measure(self.model, prompts(batch, tokens), k, method)
            for _ in range(repeats or self.repeats)
        ]
        run = sorted(runs, key=lambda r: r.seconds)[len(runs) // 2]
        each = run.seconds / batch
        products = sum(run.found.products) / len(run.found.products)
        row = Row(
            self.shape.name,
            method,
            tokens,
            k,
            batch,
            run.seconds,
            run.rest,
            to_baseline=self.baselines[tokens] / each if tokens in self.baselines else None,
            to_floor=run.rest / batch / (self.floor.products(products) * self.shape.blocks),
            products=products,
        )
        self._add(row)
        return row

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        print(
            f"{row.shape}  {row.method:<20} T={row.tokens:<4} K={row.k:<3} batch={row.batch:<3}"
            f" {row.seconds:9.2f} s"
            + (f"  released/ours {row.to_baseline:7.0f}" if row.to_baseline else "")
            + (f"  ours/floor {row.to_floor:5.2f}" if row.to_floor else ""),
            flush=True,
        )


def dense_over_floor(bench: Bench) -> float:
    """Time of the dense Jacobians alone over the block's matrix products with d vectors."""
    from benchmarks.machine import seconds
    from blockcoupling.jacobian.block_operators import same_token
    from blockcoupling.transformer.blocks import find_blocks
    from blockcoupling.transformer.recording import record_decode
    from blockcoupling.transformer.running import differentiable

    ids = prompts(1, 64)[0]
    with differentiable(bench.model):
        blocks = find_blocks(bench.model, ids[:, :4])
        call = record_decode(bench.model, blocks, ids)[0]
        taken = seconds(lambda: same_token([call]).dense(), CPU)
    floor = measure_floor(blocks.modules[0], bench.shape.dimension, CPU)
    return taken / floor.products(bench.shape.dimension)


def accuracy(shape: Shape, blocks: int, k: int) -> dict[str, float]:
    """Largest relative error of S and absolute error of m against float64, per method."""
    single, double = random_llama(shape, blocks), random_llama(shape, blocks).double()
    ids = prompts(1, 64)
    exact = measure(double, ids, k, "dense", full=True).found
    errors = {}
    for method in ("dense", "krylov"):
        found = measure(single, ids, k, method).found
        errors[f"S {method}"] = float(((found.S - exact.S).abs() / exact.S[..., :1]).max())
        errors[f"m {method}"] = float((miscoupling(found, k) - miscoupling(exact, k)).abs().max())
    return errors


def streaming(bench: Bench, k: int) -> dict[str, float]:
    """Peak resident memory of a process that streams the model, and how equal its results are."""
    with tempfile.TemporaryDirectory() as directory:
        bench.model.save_pretrained(directory)
        files = sum(f.stat().st_size for f in Path(directory).glob("*.safetensors"))
        found = in_own_process("streamed", directory, str(k))
    here = measure(bench.model, prompts(1, 64), k, "auto").found
    s = torch.tensor(found["S"])
    return {
        "weights": files,
        "bytes": found["bytes"],
        "S": float(((s - here.S[0]).abs() / here.S[0, :, :1]).max()),
        "m": float((torch.tensor(found["m"]) - miscoupling(here, k)[0]).abs().max()),
    }


def by_hand(smoke: bool) -> dict[str, dict[str, float]]:
    """Ratios to the Jacobians written by hand, by shape and threads; T = 64, K = 10."""
    from benchmarks.by_hand import ratios

    found: dict[str, dict[str, float]] = {}
    threads = torch.get_num_threads()
    for shape, blocks in ((TINY, None),) if smoke else ((SMALL, None), (LARGE, 3)):
        model = random_llama(shape, blocks)
        for several in sorted({1, min(2, threads)}):
            torch.set_num_threads(several)
            name = f"d = {shape.dimension}, {blocks or shape.blocks} blocks, threads: {several}"
            found[name] = ratios(model, prompts(16, 64), 10, 1 if blocks else 2)
            print(name, {what: round(value, 2) for what, value in found[name].items()}, flush=True)
    torch.set_num_threads(threads)
    return found


def run_cpu(smoke: bool) -> dict[str, Any]:
    """The whole comparison; returns everything the tables and the plot are made of."""
    from benchmarks.verification import verification

    small = Bench(TINY if smoke else SMALL, repeats=3)
    few = 2
    small.baseline(16, 50, few)
    small.baseline(64, 50, small.shape.blocks)
    small.baseline(512, 50, few)
    for tokens in (16, 64, 512):
        for k in (10, 30, 50):
            for method in ("dense", "krylov"):
                small.ours(method, tokens, k)
    for batch in (4, 16):
        for method in ("dense", "krylov"):
            small.ours(method, 64, 10, batch, repeats=1)
    ratio = {"small": dense_over_floor(small)}
    benches = [small]
    result: dict[str, Any] = {}
    if not smoke:
        large = Bench(LARGE, repeats=1)
        large.baseline(64, 10, few)
        for method in ("krylov", "dense"):
            for tokens, k in ((64, 10), (64, 30), (64, 50), (16, 10), (512, 10)):
                large.ours(method, tokens, k)
        for batch in (4, 16):
            large.ours("krylov", 64, 10, batch)
        ratio["large"] = dense_over_floor(large)
        benches.append(large)
        result["streaming"] = streaming(large, 10)
    else:
        result["streaming"] = streaming(small, 10)
    result["verification"] = verification(small.model, 16, 64, 10)
    print("verifying, part of a batch of 16:", f"{result['verification']['part']:.1%}", flush=True)
    result["by_hand"] = by_hand(smoke)
    shapes = ("tiny",) if smoke else ("small", "large")
    result["memory"] = {
        f"{shape}, {blocks} blocks": in_own_process("dense", shape, str(blocks), "10")
        for shape in shapes
        for blocks in (3, 6)
    }
    result["accuracy"] = {
        bench.shape.name: accuracy(bench.shape, blocks, 10)
        for bench, blocks in zip(benches, (small.shape.blocks, 4), strict=False)
    }
    return result | {
        "rows": [asdict(row) for bench in benches for row in bench.rows],
        "dense_over_floor": ratio,
        "floors": {bench.shape.name: asdict(bench.floor) for bench in benches},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def run_gpu(device: str, shapes: Sequence[tuple[Shape, int]], page: Path | None) -> None:
    """Llama-3 shaped blocks: bfloat16 weights, float32 products, all blocks' time from some."""
    from benchmarks.gpu import measure_blocks, write

    rows = []
    for shape, measured in shapes:
        for batch in (1, 16):
            rows.append(measure_blocks(shape, measured, batch, 64, 10, device))
            print(json.dumps(rows[-1]), flush=True)
    text = write(rows, torch.device(device))
    print(text)
    if page:
        page.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny model, in seconds")
    parser.add_argument("--by-hand", action="store_true", help="compare with closed forms only")
    parser.add_argument(
        "--gpu", nargs="?", const="cuda", metavar="DEVICE", help="on an accelerator"
    )
    chosen = parser.parse_args()
    if chosen.gpu:
        if chosen.smoke:
            run_gpu(chosen.gpu, [(TINY, 3)], None)
        else:
            run_gpu(chosen.gpu, [(LLAMA_8B, 8), (LLAMA_70B, 3)], Path("docs/gpu.md"))
        return
    kept = Path("benchmarks/results.json")
    if chosen.by_hand:
        found = by_hand(chosen.smoke)
        result = json.loads(kept.read_text()) | {"by_hand": found}
    else:
        result = run_cpu(chosen.smoke)
    if chosen.smoke:
        print(json.dumps({k: v for k, v in result.items() if k != "rows"}, indent=1))
        return
    from benchmarks.page import write

    kept.write_text(json.dumps(result, indent=1) + "\n")
    write(result, Path("docs"))


if __name__ == "__main__":
    main()
