"""Verbs that read a catalog: statistics, figures, the report."""

import json
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.options import (
    STEPS,
    CatalogFile,
    Checkpoints,
    Entries,
    Independent,
    Out,
    enter,
    how_made,
    read_as,
    read_pairs,
    read_spec,
)
from blockcoupling.config.choices import Modality
from blockcoupling.config.variants import DEFAULT_VARIANT, VariantName

Of = Annotated[
    Modality | None,
    typer.Option(help="Only models with this input. Default: all."),
]

Formats = Annotated[
    list[str] | None, typer.Option(help="`png`, `pdf`, `svg`; repeat. Default: png, pdf.")
]
FigureEntries = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Also write a catalog entry DIR/NAME.FORMAT.yml per file."),
]


@app.command(rich_help_panel=STEPS)
def correlate(
    catalog: CatalogFile,
    out: Annotated[Path, typer.Option(help="The correlation table; others go to the same folder.")],
    k: Annotated[int, typer.Option(min=1, help="Number of singular vectors.")] = 10,
    variant: Annotated[VariantName, typer.Option(help="Mis-coupling variant.")] = DEFAULT_VARIANT,
    checkpoints: Annotated[
        Checkpoints, typer.Option(help="Checkpoints that are points of the correlation.")
    ] = Checkpoints.all,
    resample: Annotated[
        Independent, typer.Option(help="Independent units of p-values and intervals.")
    ] = Independent.model,
    hold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=line|classes",
            help="How to control for parameters, depth, width or tokens; repeat.",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(help="Score that figures and report are about. Default: all scores."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Metric of that score. Default: all.")] = None,
    bootstrap: Annotated[int, typer.Option(help="Number of bootstrap resamples.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    modality: Of = None,
    entries: Entries = None,
) -> None:
    """Correlate the catalog's measurements with its scores.

    Example:  `blockcoupling correlate --catalog catalog.yml --out statistics/correlation.parquet`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.config.correlate import Correlate
    from blockcoupling.statistics.write import write_statistics

    written = write_statistics(
        open_catalog(catalog),
        out,
        k=k,
        variant=variant,
        checkpoints=checkpoints.value,
        resample=resample.value,
        hold=read_as(Correlate, {"hold": read_pairs("--hold", hold)}).hold,
        score=score,
        metric=metric,
        resamples=bootstrap,
        seed=seed,
        modality=modality,
    )
    facets = {} if modality is None else {"modality": str(modality)}
    enter(entries, written, facets, made_from={"catalog": catalog})


@app.command(rich_help_panel=STEPS)
def damage_statistics(
    catalog: CatalogFile,
    out: Annotated[
        Path, typer.Option(help="The table of statistics; `damage_pairs` goes to its folder.")
    ],
    k: Annotated[int, typer.Option(min=1, help="Number of singular vectors.")] = 10,
    variant: Annotated[VariantName, typer.Option(help="Mis-coupling variant.")] = DEFAULT_VARIANT,
    also: Annotated[
        list[int] | None, typer.Option(min=1, help="Another K of this variant; can be repeated.")
    ] = None,
    entries: Entries = None,
) -> None:
    """Correlate the catalog's ablation damage with coupling and its baselines.

    Example:  `blockcoupling damage-statistics --catalog catalog.yml
    --out statistics/damage_statistics.parquet`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.lab.ablation.statistics import write_damage_statistics

    written = write_damage_statistics(
        open_catalog(catalog),
        out,
        k=k,
        variant=variant,
        ks=also or [],
    )
    enter(entries, written, made_from={"catalog": catalog})


@app.command(rich_help_panel=STEPS)
def intervention(
    catalog: CatalogFile,
    out: Annotated[Path, typer.Option(help="The table of comparisons; `arms` goes to its folder.")],
    spec: Annotated[
        str,
        typer.Option(metavar="JSON|@FILE", help="A study's section `intervention`."),
    ],
    k: Annotated[int, typer.Option(min=1, help="Number of singular vectors.")] = 10,
    variant: Annotated[VariantName, typer.Option(help="Mis-coupling variant.")] = DEFAULT_VARIANT,
    metric: Annotated[
        str,
        typer.Option(help="Metric of the score `training`, the loss at which arms are compared."),
    ] = "nats_per_byte",
    entries: Entries = None,
) -> None:
    """Compare populations whose coupling was set with the control, pair by pair.

    Example:  `blockcoupling intervention --catalog catalog.yml --spec '{"control": "plain",
    "doses": ["couple"]}' --out statistics/intervention.parquet`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.config.intervention import Intervention
    from blockcoupling.lab.intervention.statistics import write_intervention

    written = write_intervention(
        open_catalog(catalog),
        out,
        read_as(Intervention, read_spec(spec)),
        k=k,
        variant=variant,
        metric=metric,
    )
    enter(entries, written, made_from={"catalog": catalog})


@app.command(rich_help_panel=STEPS)
def costs(
    benchmarks: Annotated[Path, typer.Option(help="Directory of Snakemake's benchmark files.")],
    catalog: CatalogFile,
    out: Out,
    entries: Entries = None,
) -> None:
    """Tabulate the time, processor time and memory of a study's jobs.

    Example:  `blockcoupling costs --benchmarks results/demo/benchmarks --catalog
    results/demo/catalog/measurements.yml --out costs.parquet`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.statistics.costs import write_costs

    write_costs(benchmarks, open_catalog(catalog), out)
    enter(entries, {"costs": out}, made_from={"catalog": catalog})


@app.command(rich_help_panel=STEPS)
def figure(
    name: Annotated[str, typer.Argument(help="Name of the figure; docs/figures.md lists them.")],
    catalog: CatalogFile,
    out: Annotated[Path, typer.Option(help="File name without its ending.")],
    format: Formats = None,
    modality: Of = None,
    entries: FigureEntries = None,
) -> None:
    """Draw one figure of a study from its catalog.

    If the study has nothing to show in it, the figure says why.

    Example:  `blockcoupling figure emergence --catalog catalog/catalog.yml --out emergence`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.figures import draw, save

    out.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw(name, open_catalog(catalog), modality)
    written = save(drawn, out, format or ("png", "pdf"))
    _enter_figures(entries, {name: written}, modality, catalog)


@app.command(rich_help_panel=STEPS)
def figures(
    catalog: CatalogFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory of the figures.")],
    format: Formats = None,
    modality: Of = None,
    entries: FigureEntries = None,
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="Also write a JSON list of the figures, with digests of their files.",
        ),
    ] = None,
) -> None:
    """Draw all figures of a study from its catalog.

    Figures that the study has nothing to show in are not drawn; files and entries that an earlier
    run left of them are removed.

    Example:  `blockcoupling figures --catalog catalog/catalog.yml --out figures --modality text`
    """
    from blockcoupling.atomic import replacing
    from blockcoupling.catalog import open_catalog
    from blockcoupling.digests import file_digest
    from blockcoupling.figures import FIGURES, FORMATS, draw_all

    written = draw_all(open_catalog(catalog), out, modality, format or ("png", "pdf"))
    if entries is not None:
        for name, ending in product(FIGURES, FORMATS):
            if not (out / f"{name}.{ending}").exists():
                (entries / f"{name}.{ending}.yml").unlink(missing_ok=True)
    _enter_figures(entries, written, modality, catalog)
    if listed is not None:
        digests = {
            name: {path.name: file_digest(path) for path in paths}
            for name, paths in written.items()
        }
        with replacing(listed) as fresh:
            fresh.write_text(json.dumps({"figures": digests}, indent=1) + "\n", encoding="utf-8")


def _enter_figures(
    entries: Path | None,
    written: dict[str, list[Path]],
    modality: Modality | None,
    catalog: Path,
) -> None:
    """Write the entry file of every figure that was drawn, if a directory for them is given."""
    if entries is None:
        return
    from blockcoupling.catalog import write_entry

    made = how_made({"catalog": catalog})
    for name, paths in written.items():
        for path in paths:
            ending = path.suffix[1:]
            facets = {"figure": name, "format": ending, "modality": modality}
            write_entry(entries / f"{name}.{ending}.yml", "figure", path, facets, made)


@app.command(rich_help_panel=STEPS)
def report(
    catalog: CatalogFile,
    out: Out,
    title: Annotated[str, typer.Option(help="Heading of the report.")] = "Block coupling",
    final_catalog: Annotated[
        str, typer.Option(help="Catalog that the report's loading example opens.")
    ] = "catalog/catalog.yml",
    explorer: Annotated[
        str | None, typer.Option(help="Link to the explorer, relative to the report.")
    ] = None,
    entries: Entries = None,
) -> None:
    """Write the report of a study, one self-contained HTML file, and findings.txt next to it.

    findings.txt has the three most important lines of the report.

    Example:  `blockcoupling report --catalog catalog/catalog.yml --out report.html`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.report.page import write_report

    opened = open_catalog(catalog)
    write_report(opened, out, title=title, catalog_path=final_catalog, explorer=explorer)
    enter(entries, {"report": out}, made_from={"catalog": catalog})
