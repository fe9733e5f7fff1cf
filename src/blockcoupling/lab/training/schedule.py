"""Learning rate schedule: linear warm-up, then a cosine."""

import math


def warmed_cosine(step: int, total: int, warmup: int, final: float) -> float:
    """Share of the full learning rate at an update: linear warm-up, then half a cosine.

    Args:
        step: the update, numbered from 1.
        total: updates of the whole training.
        warmup: updates of the rise; at the last of them the rate is the full one.
        final: share at the last update.
    """
    if step <= warmup:
        return step / warmup
    way = (step - warmup) / max(1, total - warmup)
    return final + (1 - final) * (1 + math.cos(math.pi * way)) / 2
