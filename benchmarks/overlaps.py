"""What measuring overlaps adds to a measurement: ratios of times in one run.

python -m benchmarks.overlaps       five minutes on one core
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from benchmarks.ours import measure
from benchmarks.shapes import Shape, prompts, random_llama

NEOX = ((48, 4, 3), (80, 5, 5), (128, 6, 4))
"""Width, blocks and heads of the built-in study's models."""
WIDE = (
    Shape("d = 576, 12 blocks", 576, 12, 9, 3, 1536),
    Shape("d = 768, 12 blocks", 768, 12, 12, 12, 2048),
)


def random_neox(dimension: int, blocks: int, heads: int) -> PreTrainedModel:
    """A model of the built-in study's family with freshly initialised weights."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=1000,
        hidden_size=dimension,
        intermediate_size=4 * dimension,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        max_position_embeddings=512,
    )
    model = GPTNeoXForCausalLM._from_config(config, attn_implementation="eager")
    return model.eval().requires_grad_(False)


def overlap_cost(smoke: bool) -> dict[str, float]:
    """Seconds of `decompose` with overlaps over those without, by shape and K.

    Both are taken in turn, with the order changed, so that a machine that is busy for a while slows
    both; medians of their ratios.
    """
    models: dict[str, Callable[[], PreTrainedModel]] = {
        f"d = {d}, {blocks} blocks": lambda shape=(d, blocks, heads): random_neox(*shape)
        for d, blocks, heads in (NEOX[:1] if smoke else NEOX)
    }
    if not smoke:
        models |= {shape.name: lambda shape=shape: random_llama(shape) for shape in WIDE}
    found = {}
    for name, make in models.items():
        model = make()
        small = model.config.hidden_size < 200
        for k in (20,) if small else (10, 50):
            found[f"{name}, K = {k}"] = _ratio(model, k, 3 if smoke else 41 if small else 9)
    return found


def _ratio(model: PreTrainedModel, k: int, repeats: int) -> float:
    ids = prompts(8, 64)
    ratios = []
    measure(model, ids, k, "auto")  # what is done once only
    for n in range(repeats):
        seconds = {}
        for overlaps in (False, True) if n % 2 else (True, False):
            start = time.perf_counter()
            measure(model, ids, k, "auto", overlaps=overlaps)
            seconds[overlaps] = time.perf_counter() - start
        ratios.append(seconds[True] / seconds[False])
    return median(ratios)


if __name__ == "__main__":
    for what, ratio in overlap_cost(smoke=False).items():
        print(f"{what}: {ratio:.2f} of the time without overlaps")
