"""Workers of a reduction that are jobs of Slurm, by way of dask-jobqueue."""

import logging
import shutil
import time
from typing import Any

from blockcoupling.config.reduce import WorkerJob
from blockcoupling.errors import UserError

logger = logging.getLogger(__name__)

NANNY_MB = 200
"""What the process takes that watches over a worker."""
PATIENCE = 600
"""Seconds after which a worker whose scheduler has gone gives up."""


def slurm_cluster(
    asks: WorkerJob, workers: int, dashboard: str | None, protocol: str, security: Any
) -> Any:
    """Return a cluster of Dask whose workers have been submitted, each as a job of its own.

    A worker that is killed, or whose node goes down, is replaced by another job.

    Args:
        asks: What each asks for.
        workers: How many.
        dashboard: Address of the dashboard; None: there is none.
        protocol: Dask's, `tcp://` or `tls://`.
        security: Dask's, for `tls://`.

    Raises:
        UserError: Slurm is not available here, or refuses such a job.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "workers of the reduction are to be jobs of Slurm (cluster: slurm), and there is no "
            "sbatch here: run this where jobs can be submitted, or choose threads or local"
        )
    from dask_jobqueue import SLURMCluster

    logs = asks.logs.absolute()
    logs.mkdir(parents=True, exist_ok=True)
    answers: list[RuntimeError | None] = []
    cluster = SLURMCluster(
        n_workers=workers,
        job_cls=_submitting(answers),
        cores=1,
        processes=1,
        memory=f"{asks.memory_mb}MiB",
        job_mem=f"{asks.memory_mb + NANNY_MB}M",
        walltime=str(asks.minutes),
        queue=asks.partition,
        account=asks.account,
        job_name="reduce-worker",
        log_directory=str(logs),
        shared_temp_directory=str(logs),
        death_timeout=PATIENCE,
        protocol=protocol,
        security=security,
        scheduler_options={"dashboard": dashboard is not None, "dashboard_address": dashboard},
    )
    while len(answers) < workers:
        time.sleep(0.1)
    if refused := [answer for answer in answers if answer is not None]:
        cluster.close()
        raise UserError(f"Slurm took no worker of the reduction: {_last_words(refused[0])}")
    cluster.adapt(minimum=workers, maximum=workers)
    logger.info("the workers are jobs of Slurm, named reduce-worker; their output: %s", logs)
    return cluster


def _submitting(answers: list[RuntimeError | None]) -> Any:
    """Return a class of jobs that write down what sbatch answers, where Dask keeps it to itself."""
    from dask_jobqueue.slurm import SLURMJob
    from distributed.core import Status

    class Submitted(SLURMJob):
        async def start(self) -> None:
            try:
                await super().start()
            except RuntimeError as error:
                answers.append(error)
                self.status = Status.failed
            else:
                answers.append(None)

    return Submitted


def _last_words(error: Exception) -> str:
    """What sbatch said, out of the message of an exception that quotes it."""
    said = [line.strip() for line in str(error).splitlines() if "error:" in line]
    return said[-1] if said else str(error).splitlines()[0]
