"""The verbs that hand studies on."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.options import STEPS

Catalogs = Annotated[
    list[str], typer.Argument(metavar="CATALOG...", help="Catalog files, or published directories.")
]


@app.command(rich_help_panel=STEPS)
def publish(
    catalogs: Catalogs,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is written.")],
    license_: Annotated[
        str,
        typer.Option(
            "--license",
            prompt="Licence of your numbers, as an SPDX identifier (CC-BY-4.0, CC0-1.0, …)",
            help="Licence, as an SPDX identifier: CC-BY-4.0, CC0-1.0, …",
        ),
    ],
    author: Annotated[
        list[str], typer.Option(help="Who publishes it; can be repeated.", show_default=False)
    ],
    title: Annotated[str | None, typer.Option(help="Default: the studies' names.")] = None,
) -> None:
    """Write a study as a directory to hand on: tables, stores, catalog, and what describes them.

    It is a Hugging Face dataset (README.md, Parquet), a catalog that `bc.open_catalog` reads from
    disk or by http, and has Croissant, RO-Crate, a manifest of hashes and a citation. Paths and
    names of this machine are left out; where one would remain, nothing is published.

    Example:  `blockcoupling publish catalog/catalog.yml DIR --license CC-BY-4.0 --author "A. B."`
    """
    import blockcoupling
    from blockcoupling.catalog import open_catalog
    from blockcoupling.explore.payloads import title_of
    from blockcoupling.publish.about import About
    from blockcoupling.publish.publishing import publish as write
    from blockcoupling.wording import size

    if title is None:
        names = [title_of(open_catalog(each), each) for each in catalogs]
        title = f"Block coupling: {', '.join(names)}"
    date = datetime.now(UTC).date().isoformat()
    about = About(title, license_, author, date, blockcoupling.__version__)
    written = write(catalogs, directory, about)
    typer.echo(
        f"{directory}: {written.files} files, {size(written.bytes)}, {written.tables} tables. "
        "Its README.md is the card of a dataset of the Hugging Face hub: `hf upload` takes it there"
    )


@app.command(rich_help_panel=STEPS)
def combine(
    catalogs: Catalogs,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The catalog of all of them.")],
) -> None:
    """Put several people's studies side by side, in one catalog.

    Each entry keeps its study, in its name and as the facet `study`. Studies whose tables cannot
    be compared (other settings or prompts, or one measured twice) are refused, with the reason.

    Example:  `blockcoupling combine mine/catalog/catalog.yml theirs --out both.yml`
    """
    from blockcoupling.catalog import join
    from blockcoupling.catalog.catalog_file import catalog_in
    from blockcoupling.errors import UserError

    files = [catalog_in(each) for each in catalogs]
    if twice := next((each for each in files if files.count(each) > 1), None):
        raise UserError(f"{twice} is given twice")
    joined = join(files, out, comparable=True)
    typer.echo(f"{out}: {len(joined)} artifacts of {len(catalogs)} catalogs")
