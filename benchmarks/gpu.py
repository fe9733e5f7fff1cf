"""Blocks of a large model on an accelerator, with random weights."""

from __future__ import annotations

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
        "seconds per prompt, all blocks (scaled)": whole / batch,
        "flop/s of the matrix products": floor.flops,
        "peak memory above weights, bytes": peak.bytes,
        "residual": float(run.found.residual.max()),
    }
