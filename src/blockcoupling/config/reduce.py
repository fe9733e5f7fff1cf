"""Section `reduce`: what is tabulated of a store, and where that is calculated."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from blockcoupling.config.section import Section, Unit, UserPath
from blockcoupling.config.variants import OF_BLOCKS, VariantName

ClusterKind = Literal["threads", "local", "slurm"]


class Reduce(Section):
    """Which K and which variants are tabulated, and where that is calculated."""

    k: Annotated[list[PositiveInt], Unit("singular triples")] = Field(default=[])
    """Unset: those of 1, 2, 5, 10, 20, 30, 50 that are at most K_max."""
    variants: list[VariantName] = Field(default=list(OF_BLOCKS), min_length=1)
    """Variants of mis-coupling that are tabulated."""
    cluster: ClusterKind = "threads"
    """Dask's threads, processes of one machine, or jobs of Slurm."""
    workers: Annotated[PositiveInt, Unit("threads, processes or jobs", 4)] = Field(
        default_factory=lambda data: 4 if _processes(data) else 1
    )
    """Number of threads, processes or jobs for each store."""
    dashboard: bool = False
    """Serve Dask's dashboard while a store is reduced; its address is in the log."""


def _processes(data: dict[str, Any]) -> bool:
    return data.get("cluster", "threads") != "threads"


class WorkerJob(Section):
    """What a worker of a reduction asks Slurm for."""

    memory_mb: PositiveInt = 2000
    minutes: PositiveInt = 60
    """Slurm may stop it after this time; another worker then replaces it."""
    partition: str | None = None
    """Defaults to the site's."""
    account: str | None = None
    logs: UserPath = Path("dask-workers")
    """The directory of its output, created if missing."""
