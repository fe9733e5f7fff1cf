"""The verb that shows catalogs in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.options import STEPS, Entries, enter


@app.command(rich_help_panel=STEPS)
def explore(
    catalogs: Annotated[
        list[str], typer.Argument(metavar="CATALOG...", help="Catalog files, or their http URLs.")
    ],
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one HTML file with its data, and serve nothing."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = 8899,
    title: Annotated[str | None, typer.Option(help="Heading. Default: the studies' names.")] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Also read artifacts outside of the studies.")
    ] = False,
    entries: Entries = None,
) -> None:
    """Show catalogs in a browser: matrices, pairs of blocks, training, scores, tokens, ablation.

    The page is served on this machine only, unless --host says otherwise. With --export it is one
    file that fetches nothing and can be mailed.

    Example:  `blockcoupling explore catalog/catalog.yml`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.explore.export import write_export
    from blockcoupling.explore.payloads import title_of
    from blockcoupling.wording import size

    opened = [open_catalog(each, allow_outside=allow_outside) for each in catalogs]
    titles = [title_of(*pair) for pair in zip(opened, catalogs, strict=True)]
    heading = title or f"Block coupling: {', '.join(titles)}"
    if export is not None:
        written = write_export(opened, titles, export, title=heading)
        typer.echo(f"{export}: {size(written.bytes)}. {written.left_out}".rstrip())
        local = {"catalog": Path(catalogs[0])} if "://" not in catalogs[0] else {}
        enter(entries, {"explorer": export}, made_from=local)
        return
    from blockcoupling.explore.server import application, serve

    serve(application(opened, titles, heading, host), host=host, port=port)
