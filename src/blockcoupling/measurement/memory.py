"""How much memory a batch of prompts takes, and how many prompts fit into what is free."""

from __future__ import annotations

from pathlib import Path

from blockcoupling.config.measurement import Settings
from blockcoupling.config.overlaps import OVERLAPS

MOST_PROMPTS = 16  # more of them no longer make a weight's reading cheaper
BYTES = 4  # float32; float64 doubles everything


def products_kept(settings: Settings) -> int:
    """How many arrays of A's size, L² K², are kept of every pair of tokens."""
    return 1 + settings.swapped + len(OVERLAPS) * settings.overlaps


def bytes_per_prompt(
    dimension: int, blocks: int, k: int, tokens: int, pairs: int = 1, kept: int = 1
) -> int:
    """Memory that one prompt of a batch adds, in bytes, at float32.

    The sum of: its context in every block, before and after the last token, 4 T d L; U and V of
    every block, kept and stacked, 4 d K L; A and its like, L² K² each; one Jacobian with the
    iteration's bases beside it, 3 d²; its hidden states in float64, 2 T d (L + 1). All but the
    states count for every pair of tokens. Not counted is what a Jacobian's accumulation needs for a
    moment, whatever the batch: some 100 MB for each block that is worked on (`accumulate.ENTRIES`).

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
    """Memory that is free: of the device, or of the machine, or of the job's control group."""
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


def prompts_at_once(per_prompt: int, free: int) -> int:
    """How many prompts to measure together: half of what is free, 1 … 16.

    Args:
        per_prompt: `bytes_per_prompt`.
        free: `free_bytes`, after the model has been loaded.
    """
    return max(1, min(MOST_PROMPTS, free // 2 // max(1, per_prompt)))
