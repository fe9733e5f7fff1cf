"""Data parallelism: several processes train one model, each on a part of every batch.

Whatever is drawn at random is drawn for the whole batch in every process, so that the training is
the one of a single process, but for the order in which sums are taken. That order is always the
same, so that a training that is resumed repeats its bits; the order of torch's
DistributedDataParallel changes after its first update.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessException, start_processes
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from blockcoupling.errors import MeasurementError, UserError

if TYPE_CHECKING:
    from jaxtyping import Shaped

LONGEST_WAIT = timedelta(minutes=10)
"""Timeout for other processes: longer than reading images or saving a state takes."""


@dataclass(frozen=True)
class Part:
    """The part of one process in a training; everything for a single process.

    Attributes:
        rank: of the process, from 0; that one writes what there is to write.
        count: of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def device(self) -> str:
        """The GPU of this process, or the CPU without GPUs."""
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{self.rank}"

    def of(self, whole: Shaped[Tensor, "sample ..."]) -> Shaped[Tensor, "own ..."]:
        """The samples of a batch that belong to this process."""
        return whole.tensor_split(self.count)[self.rank]

    def summed(self, values: Shaped[Tensor, " number"]) -> Shaped[Tensor, " number"]:
        """The sum over all processes, equal in each of them."""
        if self.count == 1:
            return values
        total = values.to(self.device, copy=True)  # of GPUs: where NCCL adds
        distributed.all_reduce(total)
        return total.to(values.device)

    def wait(self) -> None:
        """Wait until all processes get here."""
        if self.count > 1:
            distributed.barrier()

    def average_gradients(self, model: nn.Module) -> None:
        """Give each parameter the mean of its gradients over the processes."""
        if self.count == 1:
            return
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        # One message instead of hundreds.
        every = parameters_to_vector(gradients)
        distributed.all_reduce(every)
        vector_to_parameters(every / self.count, gradients)


ALONE = Part()


def share(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run a function in a given number of processes, and wait for them.

    Args:
        count: processes; each has a GPU of its own, or all have none. One alone is this process.
        work: what each does, with its part and the arguments; a function of a module.
        arguments: that can be pickled.

    Raises:
        UserError: there are fewer GPUs than processes.
        MeasurementError: one of them has failed; the others are ended.
    """
    if count == 1:
        work(ALONE, *arguments)
        return
    gpus = torch.cuda.device_count()
    if 0 < gpus < count:
        raise UserError(f"processes = {count}, but each takes a GPU, and there are {gpus}")
    with tempfile.TemporaryDirectory() as directory:
        meeting = Path(directory) / "meeting"
        try:
            start_processes(
                _one, (count, meeting, work, arguments), nprocs=count, start_method="spawn"
            )
        except ProcessException as error:
            reason = str(error).strip().splitlines()[-1]
            raise MeasurementError(f"of {count} processes, one failed: {reason}") from error


def _one(
    rank: int,
    count: int,
    meeting: Path,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    part = Part(rank, count)
    if part.device != "cpu":
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "gloo" if part.device == "cpu" else "nccl",
        init_method=meeting.as_uri(),
        rank=rank,
        world_size=count,
        timeout=LONGEST_WAIT,
    )
    work(part, *arguments)
    distributed.destroy_process_group()
