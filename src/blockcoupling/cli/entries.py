"""Verbs that write the catalog."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.knobs import read_text
from blockcoupling.cli.options import STEPS, Facets, read_facets
from blockcoupling.errors import UserError


@app.command(rich_help_panel=STEPS)
def entry(
    kind: Annotated[str, typer.Option(help="Kind of artifact: model, svd, coupling, figure, …")],
    path: Annotated[Path, typer.Option(help="The file or the Zarr store.")],
    out: Annotated[Path, typer.Option(help="The entry file to write (YAML).")],
    facet: Facets = None,
) -> None:
    """Describe one artifact in an entry file, for `blockcoupling catalog` to join.

    Example:  `blockcoupling entry --kind coupling --path tables/coupling.parquet --out
    entries/coupling.yml --facet model=tiny --facet checkpoint=main --facet dataset=arc`
    """
    from blockcoupling.catalog import write_entry

    write_entry(out, kind, path, read_facets(facet))


@app.command(rich_help_panel=STEPS)
def catalog(
    out: Annotated[Path, typer.Option(help="The catalog file to write.")],
    entries: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[ENTRY...]", help="Entry files, or catalogs of them."),
    ] = None,
    entries_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file that lists them; - is stdin."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study; no other's is overwritten."),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory of the study's results.")
    ] = None,
    configuration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Configuration of the study, for `verify`."),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(help="The command that makes the study, for `verify`."),
    ] = None,
) -> None:
    """Join entry files into one Intake catalog.

    Catalogs of several studies can be joined, too: each entry is then named STUDY/… and has the
    facet `study`.

    Example:  `blockcoupling catalog --out catalog.yml entries/*.yml`
    """
    from blockcoupling.catalog import join

    files = list(entries or [])
    if entries_from is not None:
        listed = sys.stdin.read() if entries_from == "-" else read_text(Path(entries_from))
        files += [Path(line) for line in listed.splitlines() if line]
    if not files:
        raise UserError("no entry files: give some, or a list with --entries-from")
    join(files, out, study=study, results=results, configuration=configuration, command=command)
