"""Measure a model in the middle of its training and leave the training as it was.

`running.differentiable` restores modes, attention, precision and compiled modules, and gradients
are never accumulated. What remains are random states, and what a training wraps around its model.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from blockcoupling.errors import UserError

SHARDED = (
    "coupling cannot be measured while a training shards its weights (FSDP, ZeRO-3, tensor "
    "parallelism): measure its saved checkpoints, with bc.measure or `blockcoupling measure "
    "CHECKPOINT PROMPT`"
)
_SHARDED = (
    ("torch.distributed.tensor", "DTensor"),
    ("torch.distributed.fsdp", "FullyShardedDataParallel"),
)
_DRAWING = ("cuda", "xpu")  # devices with a random state of their own


def bare(model: nn.Module) -> nn.Module:
    """The model itself, without data parallelism and compilation around it.

    Raises:
        UserError: its weights are divided between processes.
    """
    wrapped = True
    while wrapped:
        inner: Any = getattr(model, "_orig_mod", None)  # of what torch.compile returns
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inner = model.module
        wrapped, model = inner is not None, model if inner is None else inner
    kinds = [getattr(sys.modules.get(module), name, ()) for module, name in _SHARDED]
    for each in (*model.modules(), *model.parameters()):
        if hasattr(each, "ds_id") or any(isinstance(each, kind) for kind in kinds):
            raise UserError(SHARDED)
    return model


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """A context in which a model in training can be measured, in the precision of its weights.

    Afterwards the random states of torch, NumPy and Python are what they were before, and so is
    the forward that accelerate replaced for mixed precision.
    """
    devices: dict[str, set[int]] = {}
    for parameter in model.parameters():
        if (kind := parameter.device.type) in _DRAWING:
            devices.setdefault(kind, set()).add(parameter.device.index)
    with ExitStack() as after:
        after.enter_context(torch.random.fork_rng(devices=[]))
        for kind, numbers in devices.items():
            after.enter_context(torch.random.fork_rng(sorted(numbers), device_type=kind))
        after.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        after.callback(random.setstate, random.getstate())
        own = vars(model)
        if (original := own.get("_original_forward")) is not None:
            after.callback(own.__setitem__, "forward", own.pop("forward"))
            if getattr(original, "__func__", None) is not type(model).forward:
                own["forward"] = original
        yield
