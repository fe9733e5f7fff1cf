"""Where the arithmetic of a reduction runs: threads, processes of this machine, or jobs of Slurm.

The same kernels get the same chunks everywhere, each with one thread of BLAS, and what they return
is put together in one order: the numbers are the same to the last bit on machines of one kind.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import islice, starmap
from typing import Any

from blockcoupling.computing import SCHEDULER
from blockcoupling.config.reduce import ClusterKind, WorkerJob
from blockcoupling.errors import UserError
from blockcoupling.reduce.slurm_workers import slurm_cluster

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1:8787"
"""Where the dashboard is served, if nothing else is there: on this machine alone."""
LOCAL = "127.0.0.1"
STARTUP = "60s"
"""How long a worker may take until it answers."""

Lazy = tuple[Any, ...]
Each = Callable[[Iterable[Lazy]], Iterator[Lazy]]
"""Computes some collections after the other, each one whole, in their order."""


@dataclass(frozen=True)
class Engine:
    """Where a reduction runs.

    Attributes:
        cluster: `threads` of this process, `local` processes, or `slurm` jobs.
        workers: Threads, processes or jobs; None: as many as this machine has cores.
        dashboard: Whether Dask's dashboard is served; its address goes to the log.
        job: What each worker asks Slurm for.
    """

    cluster: ClusterKind = "threads"
    workers: int | None = None
    dashboard: bool = False
    job: WorkerJob = field(default_factory=WorkerJob)


@contextmanager
def running(engine: Engine, at_once: int) -> Iterator[Each]:
    """Start what is to compute, and stop it on leaving.

    Args:
        engine: Where.
        at_once: How many chunks there are in what is computed as one: where there are more workers,
            several are computed at once.

    Yields:
        A function that computes an iterable of tuples of collections, in their order.

    Raises:
        UserError: the engine is not available here; or, from the function, its workers died.
    """
    import dask
    from threadpoolctl import threadpool_limits

    # Dask runs prompts in parallel: threads of BLAS on top of that would only compete.
    with threadpool_limits(1, "blas"):
        if engine.cluster == "threads" and not engine.dashboard:
            with dask.config.set(num_workers=engine.workers, **SCHEDULER):
                yield partial(starmap, dask.compute)
            return
        with _client(engine) as client:
            yield lambda lazies: _in_order(client, lazies, 1 + (engine.workers or 1) // at_once)


def _in_order(client: Any, lazies: Iterable[Lazy], ahead: int) -> Iterator[Lazy]:
    """Compute `ahead` + 1 at a time, more than fill all workers, so that none waits."""
    import dask
    from distributed.scheduler import KilledWorker

    def compute(lazy: Lazy) -> Lazy:
        return dask.compute(*lazy, scheduler=client.get)

    left = iter(lazies)
    with ThreadPoolExecutor(1 + ahead) as threads:
        going: list[Future[Lazy]] = []
        try:
            going += [threads.submit(compute, lazy) for lazy in islice(left, 1 + ahead)]
            while going:
                done = going.pop(0).result()
                going += [threads.submit(compute, lazy) for lazy in islice(left, 1)]
                yield done
        except KilledWorker as error:
            raise UserError(
                "workers of the reduction were killed again and again over one piece of work, most "
                "often for want of memory: give each one more (in a study, a further attempt does: "
                "snakemake --retries 2)"
            ) from error
        finally:
            for each in going:
                each.cancel()


@contextmanager
def _client(engine: Engine) -> Iterator[Any]:
    import dask
    from distributed import Client

    if engine.dashboard and find_spec("bokeh") is None:
        raise UserError("Dask's dashboard needs Bokeh: pip install 'blockcoupling[dashboard]'")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": STARTUP}),
        _cluster(engine) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(_one_thread_of_blas())
        if engine.dashboard:
            # Not the cluster's own link, which names this machine as others see it.
            port = cluster.scheduler_info["services"]["dashboard"]
            logger.warning("Dask's dashboard: http://%s:%d/status", LOCAL, port)
        yield client


def _cluster(engine: Engine) -> Any:
    """Return a cluster of Dask, not yet connected to."""
    import dask
    from distributed import LocalCluster
    from distributed.security import Security

    address = ADDRESS if engine.dashboard else None
    workers = engine.workers or dask.system.CPU_COUNT
    protocol, security = "tcp://", None
    if find_spec("cryptography") is not None:
        # Certificates for this run alone: without them, anyone who reaches the port of a scheduler
        # can run anything on it.
        protocol, security = "tls://", Security.temporary()
    if engine.cluster == "slurm":
        return slurm_cluster(engine.job, workers, address, protocol, security)
    processes = engine.cluster == "local"
    return LocalCluster(
        n_workers=workers if processes else 1,
        threads_per_worker=1 if processes else workers,
        processes=processes,
        protocol=protocol if processes else None,
        security=security if processes else None,
        host=LOCAL if processes else None,
        dashboard_address=address,
        silence_logs=logging.ERROR,
    )


def _one_thread_of_blas() -> Any:
    from distributed import WorkerPlugin

    class OneThreadOfBlas(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            import numpy  # noqa: F401  so that there is a BLAS to limit
            from threadpoolctl import threadpool_limits

            threadpool_limits(1, "blas")

    return OneThreadOfBlas()
