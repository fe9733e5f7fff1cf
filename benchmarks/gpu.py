"""Blocks of a large model on an accelerator, with random weights, and the page about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.machine import measure_floor
from benchmarks.ours import measure
from benchmarks.peak import PeakMemory
from benchmarks.shapes import Shape, prompts, random_llama


def measure_blocks(
    shape: Shape, blocks: int, batch: int, tokens: int, k: int, device: str
) -> dict[str, Any]:
    """Time `blocks` blocks of a shape and scale to all of them (A has blocks² pairs: said so).

    Weights are made in bfloat16 and used in float32, as a model stored in bfloat16 is measured.
    """
    model = random_llama(shape, blocks, device, torch.bfloat16).float()
    ids = prompts(batch, tokens, device)
    floor = measure_floor(model.base_model.layers[0], shape.dimension, ids[0].device)
    measure(model, ids, k, "krylov")
    with PeakMemory(ids[0].device) as peak:
        run = measure(model, ids, k, "krylov")
    products = sum(run.found.products) / len(run.found.products)
    # The second sweep of the whole model applies each block to K vectors of every block.
    missing = k * (shape.blocks - blocks)
    whole = (run.seconds + blocks * floor.products(missing) * batch) * shape.blocks / blocks
    return {
        "shape": shape.name,
        "blocks measured": blocks,
        "batch": batch,
        "tokens": tokens,
        "k": k,
        "seconds": run.seconds,
        "products": products,
        "seconds over floor": run.seconds / (floor.products(products) * blocks * batch),
        "seconds per prompt, all blocks (scaled)": whole / batch,
        "flop/s of the matrix products": floor.flops,
        "peak memory above weights, bytes": peak.bytes,
        "residual": float(run.found.residual.max()),
    }


PAGE = """# On a GPU

Written by `python -m benchmarks --gpu`; do not edit. {device}, torch {torch}. Blocks
of the shapes of Llama 3 with random weights: created in bfloat16, used in float32 (no TF32), last
token of {tokens} tokens, top {k} triples, matrix-free to a residual of 1e-4 s_1. A few blocks are
timed and scaled to all blocks of the shape, including the pairs of the second sweep.

The **floor** is the products with a block at the rate measured for the block's own matrices with d
vectors ({rate:.0f} Tflop/s). The time above it is mostly the host's: every prompt has its own graph
of a block, and each of its kernels is launched for a few vectors at a time. So `method: auto` takes
the dense method on an accelerator up to the width at which counts favour products
(`blockcoupling/jacobian/method.py`).

| blocks | timed | prompts together | seconds | over the floor | seconds a prompt, all blocks | \
memory above weights, MB | products a block | residual |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
{rows}

`pytest tests/gpu` tests that the numbers on a GPU agree with float64 on a CPU, for every family of
models in it, with and without TF32 in the process.
"""


def write(rows: Sequence[dict[str, Any]], device: torch.device) -> str:
    """The page as Markdown."""
    cells = [
        f"| {r['shape']} | {r['blocks measured']} | {r['batch']} | {r['seconds']:.2f} |"
        f" {r['seconds over floor']:.1f} | {r['seconds per prompt, all blocks (scaled)']:.1f} |"
        f" {r['peak memory above weights, bytes'] / 1e6:.0f} | {r['products']:.0f} |"
        f" {r['residual']:.0e} |"
        for r in rows
    ]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return PAGE.format(
        device=name,
        torch=torch.__version__,
        tokens=rows[0]["tokens"],
        k=rows[0]["k"],
        rate=rows[0]["flop/s of the matrix products"] / 1e12,
        rows="\n".join(cells),
    )
