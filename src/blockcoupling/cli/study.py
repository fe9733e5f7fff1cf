"""A study before it runs: what is wrong with it, what it will need."""

import json
from pathlib import Path
from typing import Annotated

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.options import STEPS


@app.command(rich_help_panel=STEPS)
def check(
    config: Annotated[Path, typer.Option(help="The configuration of a study (YAML).")],
) -> None:
    """Check a study's configuration and list everything that is wrong with it.

    Example:  `blockcoupling check --config config/config.yaml`
    """
    from blockcoupling.study.check import load_config

    study = load_config(config)
    typer.echo(
        f"{config} is in order: {len(study.models)} models, {len(study.datasets)} datasets, "
        f"{len(list(study.jobs()))} measurements; results go to {study.results}"
    )


@app.command(rich_help_panel=STEPS)
def plan(
    config: Annotated[Path, typer.Option(help="The configuration of a study (YAML).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what the jobs of a study are expected to need: memory, GPUs, time, disk.

    A line is one step of one model: how many jobs, what the largest of them needs, and how long
    all of them take one after another. Estimates from the sizes of the models, right within a
    factor of a few; the workflow asks for as much memory, and for three times the time. Nothing is
    downloaded and nothing runs.

    Example:  `blockcoupling plan --config config/studies/paper.yaml`
    """
    from blockcoupling.study.check import load_config
    from blockcoupling.study.plan import as_table, plan_of

    planned = plan_of(load_config(config))
    typer.echo(json.dumps(planned, indent=2) if as_json else as_table(planned))
