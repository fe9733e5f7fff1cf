"""A study before it runs, while it runs and after."""

import json
from pathlib import Path
from typing import Annotated

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.options import STEPS, CatalogFile

AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Also read artifacts outside of the study.")
]


@app.command(rich_help_panel=STEPS)
def check(
    config: Annotated[Path, typer.Option(help="The configuration of a study (YAML).")],
) -> None:
    """Check a study's configuration and list everything that is wrong with it.

    If nothing is wrong, the members of its populations are listed, with the values that differ.

    Example:  `blockcoupling check --config config/config.yaml`
    """
    from blockcoupling.study.check import load_config
    from blockcoupling.study.members import members_table

    study = load_config(config)
    if members := members_table(study):
        typer.echo(f"{members}\n")
    typer.echo(
        f"{config} is valid: {len(study.models)} models, {len(study.datasets)} datasets, "
        f"{len(list(study.jobs()))} measurements; results go to {study.results}"
    )


@app.command(rich_help_panel=STEPS)
def plan(
    config: Annotated[Path, typer.Option(help="The configuration of a study (YAML).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Estimate what a study needs: memory, GPUs, time and disk.

    A line is one step of one model: the number of jobs, what the largest of them needs, and how
    long all of them take one after another. Time is work by counts at the rates that
    `blockcoupling calibrate` measured; without these, at guessed ones. Jobs that have run already
    are compared with their estimate. The workflow asks for this memory and for three times this
    time. Nothing is downloaded and nothing runs.

    Example:  `blockcoupling plan --config config/studies/paper.yaml`
    """
    from blockcoupling.study.check import load_config
    from blockcoupling.study.plan import as_table, plan_of

    planned = plan_of(load_config(config))
    typer.echo(json.dumps(planned, indent=2) if as_json else as_table(planned))


@app.command(rich_help_panel=STEPS)
def calibrate(
    out: Annotated[
        Path, typer.Option(help="The file of rates: the key `rates` of a study.")
    ] = Path("rates.yaml"),
    device: Annotated[
        str, typer.Option(help="Measure only: cpu, or a GPU such as cuda. Default: both.")
    ] = "auto",
) -> None:
    """Measure how fast this machine is, so that `plan` and the jobs' requests are right.

    It takes half a minute. Measured are: matrix products, Jacobians, reading memory and files,
    writing stores, starting processes, and small models. Run it where the jobs will run. On a
    cluster that is a compute node, not the login node:
    `srun --exclusive blockcoupling calibrate`; on a node with a GPU, its rates are added to the
    same file. The file says which machine each rate is from. Commit it along with the study.

    Example:  `blockcoupling calibrate --out rates.yaml`
    """
    from blockcoupling.study.calibration import calibrated
    from blockcoupling.study.rates import as_text, write_rates

    found = calibrated(out.absolute().parent, device)
    write_rates(out, **found)
    typer.echo(as_text(found))
    typer.echo(f"{out}: used by `blockcoupling plan` and by the jobs' requests")


@app.command(rich_help_panel=STEPS)
def status(
    config: Annotated[Path, typer.Option(help="The configuration of a study (YAML).")],
    snakefile: Annotated[
        Path | None, typer.Option(help="The workflow. Default: as `snakemake` finds it here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show which jobs are done, running, failed or out of date, and how long the rest takes.

    Run it in the directory where `snakemake` runs, during a run or after it was killed. It locks
    nothing and starts nothing. Stale jobs are those that Snakemake would run again. On a terminal
    the page is kept up to date for as long as Snakemake runs; Ctrl-C ends it.

    Example:  `blockcoupling status --config config/config.yaml`
    """
    from blockcoupling.study.check import load_config
    from blockcoupling.study.watch import as_document, show

    study = load_config(config)
    if as_json:
        typer.echo(json.dumps(as_document(study, config, snakefile), indent=2))
    else:
        show(study, config, snakefile)


@app.command(rich_help_panel=STEPS)
def clean(
    config: Annotated[Path, typer.Argument(help="The configuration of a study (YAML).")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove it, instead of listing it.")] = False,
) -> None:
    """List what a study keeps on disk and does not need any more, and remove it with --yes.

    Results stay. What goes: finished prompts of complete stores, training states of models whose
    checkpoints are written, and Snakemake's logs. If prompts or checkpoints are added to the study
    later, their jobs begin from the start. Run it where you run `snakemake`.

    Example:  `blockcoupling clean config/config.yaml`
    """
    from blockcoupling.study import clean as cleaning
    from blockcoupling.study.check import load_config

    study = load_config(config)
    spares = cleaning.spare(study)
    if yes:
        cleaning.free(spares)
    typer.echo(cleaning.as_text(study, spares, config, freed=yes))


@app.command(rich_help_panel=STEPS)
def verify(
    catalog: Annotated[Path, typer.Argument(help="The catalog of a study.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    allow_outside: AllowOutside = False,
) -> None:
    """Read every artifact of a study and list those that are missing, damaged or changed.

    Each is compared with the digest in its entry and with the checksums of its format. The exit
    status is 3 if an artifact has to be recomputed; the commands for that are printed last.

    Example:  `blockcoupling verify catalog/catalog.yml`
    """
    from collections import Counter

    from blockcoupling.catalog import open_catalog
    from blockcoupling.progress import Progress
    from blockcoupling.study import verify as verified

    opened = open_catalog(catalog, allow_outside=allow_outside)
    counts: Counter[str] = Counter()
    notable = []
    with Progress(len(opened), "verifying", "artifact") as progress:
        for verdict in verified.verify_study(opened, progress.advance):
            counts[verdict.status] += 1
            if verdict.status != verified.RIGHT:
                notable.append(verdict)
    wrong = [verdict for verdict in notable if verdict.wrong]
    if as_json:
        typer.echo(json.dumps(verified.as_json(counts, notable), indent=2))
    else:
        for verdict in wrong:
            typer.echo(verified.as_text(verdict))
        for verdict in notable:
            if not verdict.wrong:
                typer.echo(f"{verdict.status}: {verdict.entry} ({verdict.reason})")
        if wrong and (commands := verified.how_to_make_again(wrong, opened)):
            typer.echo(commands)
        typer.echo(verified.summary(counts))
    if wrong:
        raise typer.Exit(3)


@app.command(rich_help_panel=STEPS)
def provenance(
    entry: Annotated[str, typer.Argument(help="The name of its entry in the catalog.")],
    catalog: CatalogFile = Path("catalog/catalog.yml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    allow_outside: AllowOutside = False,
) -> None:
    """Show the provenance of an artifact: code, command, model, seeds, libraries and inputs.

    Example:  `blockcoupling provenance svd/neox-64/step600/heldout --catalog catalog/catalog.yml`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.study import provenance as made

    opened = open_catalog(catalog, allow_outside=allow_outside)
    found = made.provenance(opened, entry)
    further = list(made.upstream(opened, entry))
    if as_json:
        found["upstream"] = {name: made.provenance(opened, name) for _, name in further}
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo(made.as_text(found, [each for each in further if each[0] > 1]))
