"""Which jobs a study has, and which of them Snakemake would run now: Snakemake's own answer.

It is what `snakemake --dry-run` finds out, of the jobs too that it would leave alone. The
directory is not locked and no job is started. Loading a workflow changes the process that does
so; hence a process for each answer:

    python -m blockcoupling.study.planned CONFIG [SNAKEFILE]
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path

from blockcoupling.errors import UserError

_SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
"""Where Snakemake looks, in this order."""


@dataclass(frozen=True)
class Planned:
    """A job of a study.

    Attributes:
        rule: Whose job it is.
        wildcards: What it is of: model, checkpoint, dataset, figure, …
        outputs: The files that it makes.
        reason: Why Snakemake would run it; empty: it would not.
        log: Where its verb writes what it has to say.
        benchmark: Where Snakemake writes how long it took.
    """

    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    reason: str = ""
    log: str | None = None
    benchmark: str | None = None


def planned(config: Path, snakefile: Path | None = None) -> list[Planned]:
    """Ask Snakemake for all jobs of a study, in the working directory.

    Args:
        config: The study's configuration.
        snakefile: The workflow; by default the one that `snakemake` takes here.

    Raises:
        UserError: there is no workflow here, or it cannot be loaded.
    """
    if snakefile is None and not any(Path(each).is_file() for each in _SNAKEFILES):
        raise UserError(
            f"there is no Snakefile in {Path.cwd()}: type this where you type `snakemake`, or name "
            "it with --snakefile"
        )
    command = [sys.executable, "-m", __name__, str(config), *map(str, filter(None, [snakefile]))]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        said = asked.stderr.strip().splitlines() or ["it says nothing"]
        raise UserError("Snakemake cannot plan this study: " + "\n".join(said[-5:]))
    return [
        Planned(**{**each, "outputs": tuple(each["outputs"])})
        for each in map(json.loads, asked.stdout.splitlines())
    ]


def _ask(config: Path, snakefile: Path | None) -> list[Planned]:
    """Load the workflow in this process, and look at every job of its graph."""
    from snakemake.api import (
        ConfigSettings,
        DAGSettings,
        OutputSettings,
        ResourceSettings,
        SnakemakeApi,
    )
    from snakemake.settings.enums import ChangeType, Quietness

    # As `profiles/default` asks for: what a killed job has left is made again.
    options = DAGSettings(force_incomplete=True)
    with (
        redirect_stdout(sys.stderr),
        SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, enable_file_logging=False)) as api,
    ):
        loaded = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[config]),
            snakefile=snakefile,
        )
        # Builds the graph of jobs, without a lock and without a run; what it lists is not needed.
        loaded.dag(options).list_changes(ChangeType.CODE)
        graph = loaded._workflow.dag
        return [
            Planned(
                rule=job.rule.name,
                wildcards=dict(job.wildcards_dict),
                outputs=tuple(map(str, job.output)),
                reason=str(graph.reason(job)) if graph.needrun(job) else "",
                log=next(iter(map(str, job.log)), None),
                benchmark=None if job.benchmark is None else str(job.benchmark),
            )
            for job in graph.jobs
            if job.output
        ]


if __name__ == "__main__":
    where, *of = map(Path, sys.argv[1:])
    for job in _ask(where, next(iter(of), None)):
        print(json.dumps(asdict(job)))
