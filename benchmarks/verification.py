"""What comparing decoded prompts with the full forward pass costs, next to the whole batch."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import nn

from benchmarks.shapes import prompts
from blockcoupling.config.measurement import Settings
from blockcoupling.measurement.measure_batch import measure_batch
from blockcoupling.measurement.prepare import prepare_prompts
from blockcoupling.measurement.record import record_batch
from blockcoupling.transformer.recording import record_in_two
from blockcoupling.transformer.running import differentiable
from blockcoupling.transformer.tokens import TokenizedPrompt


def verification(model: nn.Module, batch: int, tokens: int, k: int) -> dict[str, float]:
    """Seconds of the first batch, and of the part of it that only verifies.

    In the first batch the shortest and the longest prompt are compared at every block; later ones
    are compared only where they do something new.

    Args:
        model: the model.
        batch: how many prompts.
        tokens: of the longest; the shortest has half as many.
        k: singular triples.
    """
    lengths = [tokens // 2 + (tokens - tokens // 2) * i // max(1, batch - 1) for i in range(batch)]
    asked = [
        TokenizedPrompt(str(n), ids[:, :length], ("",) * length)
        for n, (ids, length) in enumerate(zip(prompts(batch, tokens), lengths, strict=True))
    ]
    prepared, complete = prepare_prompts(model, asked, Settings(k=k))
    with differentiable(model):
        recorded = _seconds(lambda: record_batch(prepared, complete))
        blocks = prepared.blocks
        decoded = _seconds(lambda: [record_in_two(model, blocks, p.input_ids) for p in asked])
    whole = _seconds(lambda: measure_batch(prepared, complete))
    return {"seconds": whole, "verifying": recorded - decoded, "part": (recorded - decoded) / whole}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
