"""How many prompts are measured together, and how much memory they take."""

from __future__ import annotations

from pathlib import Path

from blockcoupling.config.measurement import Settings
from blockcoupling.config.overlaps import CUMULATIVE, OVERLAPS

MOST_PROMPTS = 16
"""Prompts per batch by default; more would not make a prompt's share of a block much cheaper."""
BATCH_BYTES = 8 * 2**30
"""What a batch may take by default: the same on every machine, so that bits are the same."""
BYTES = 4  # float32; float64 doubles everything


def products_kept(settings: Settings) -> int:
    """How many arrays of A's size, L² K², are kept for every pair of tokens."""
    matrices = 1 + settings.swapped + len(settings.other_parts)
    return matrices + len(OVERLAPS) * settings.overlaps + len(CUMULATIVE) * settings.cumulative


def bytes_per_prompt(
    dimension: int, blocks: int, k: int, tokens: int, pairs: int = 1, kept: int = 1
) -> int:
    """Memory that one prompt of a batch adds, in bytes, at float32.

    The sum of: its context in every block, before and after the last token, 4 T d L; U and V of
    every block, kept and stacked, 4 d K L; A and arrays of the same size, L² K² each; one Jacobian
    with the iteration's bases, 3 d²; its hidden states in float64, 2 T d (L + 1). All but the
    states count for every pair of tokens. Not counted: about 100 MB for each block in work, which
    accumulating a Jacobian takes for a moment, at any batch size (`pieces.ENTRIES`).

    Args:
        dimension: d.
        blocks: L.
        k: K_max.
        tokens: T, of the longest prompt.
        pairs: token pairs measured in the prompt.
        kept: arrays of A's size (`products_kept`).
    """
    context = 4 * tokens * dimension * blocks
    vectors = 4 * dimension * k * blocks
    products = kept * (blocks * k) ** 2
    jacobian = 3 * dimension**2
    states = 2 * tokens * dimension * (blocks + 1)
    return BYTES * (pairs * (context + vectors + products + jacobian) + states)


def free_bytes(device: str = "cpu") -> int:
    """Free memory in bytes, of the device, the machine, or the job's control group."""
    if not device.startswith("cpu"):
        import torch

        return int(torch.accelerator.get_memory_info(device)[0])
    import psutil

    free = psutil.virtual_memory().available
    limits = (  # cgroup v2, v1: what a cluster's job may use
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    )
    for limit, usage in limits:
        if Path(limit).is_file() and (most := Path(limit).read_text().strip()).isdigit():
            free = min(free, int(most) - int(Path(usage).read_text()))
    return free


def prompts_within(size: int, per_prompt: int) -> int:
    """How many prompts to measure together in `size` bytes of `per_prompt` each, 1 … 16."""
    return max(1, min(MOST_PROMPTS, size // max(1, per_prompt)))
