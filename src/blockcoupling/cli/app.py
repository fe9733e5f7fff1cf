"""The command line: one verb a step, each calling one function of the package.

The workflow's rules are these verbs; anything the workflow does can be done by hand with them.
A verb imports what it needs when it runs, so that light steps start in a fraction of a second.
"""

import json
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from blockcoupling.cli.knobs import But, read_json, read_text, takes_settings
from blockcoupling.config.measurement import CompareTokens, Extract, Loading, kept_for
from blockcoupling.config.presets import PRESETS
from blockcoupling.config.variants import DEFAULT_VARIANT, VARIANTS, VariantName
from blockcoupling.errors import MeasurementError, UserError


class _Verbs(TyperGroup):
    """Ends a failed verb with its message alone; the exit status tells what kind of failure."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (UserError, MeasurementError) as error:
            if ctx.params["debug"]:
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2 if isinstance(error, UserError) else 3) from None


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; exit status 2 means wrong input, 3 a measurement not to be trusted."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        import blockcoupling

        typer.echo(f"blockcoupling {blockcoupling.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error arose.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it and end."),
    ] = False,
) -> None:
    """Measure how well the blocks of a transformer line up.

    Start with one model:  `blockcoupling measure MODEL "a prompt"`

    The other verbs are the steps of a study, which `snakemake` runs in their order.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")


# ------------------------------------------------------------------------- shared by several verbs


if TYPE_CHECKING:
    import xarray as xr

    Variant = str
else:  # typer takes a list of choices as an Enum only
    Variant = StrEnum("Variant", {name: name for name in VARIANTS})


class Checkpoints(StrEnum):
    """Which checkpoints of a model are points of a correlation."""

    all = "all"
    final = "final"


Spec = Annotated[
    str,
    typer.Option(
        metavar="JSON|@FILE",
        help="What to make: JSON, or @ and the name of a file that holds it.",
    ),
]
Out = Annotated[Path, typer.Option(help="What to write.")]
CatalogFile = Annotated[Path, typer.Option(help="A catalog that has what is needed.")]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1`, …")]
Entries = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Also write DIR/KIND.yml, the catalog entry of each thing made."
    ),
]
Facets = Annotated[
    list[str] | None,
    typer.Option(
        "--facet",
        metavar="KEY=VALUE",
        help="What the catalog finds it by, e.g. model=tiny; repeat.",
    ),
]

ONE_MODEL, STEPS = "One model", "Steps of a study"


def _spec(text: str) -> dict[str, Any]:
    spec = read_json(text, "--spec")
    if not isinstance(spec, dict):
        raise UserError('--spec must be a JSON object, such as {"name": "tiny"}')
    return spec


def _facets(pairs: list[str] | None) -> dict[str, str]:
    if wrong := [pair for pair in pairs or [] if "=" not in pair]:
        raise UserError(f"--facet takes KEY=VALUE, not {', '.join(map(repr, wrong))}")
    return dict(pair.split("=", 1) for pair in pairs or [])


def _enter(
    directory: Path | None, artifacts: dict[str, Path], facets: dict[str, str] | None = None
) -> None:
    if directory is not None:
        from blockcoupling.catalog import write_entry

        for kind, path in artifacts.items():
            write_entry(directory / f"{kind}.yml", kind, path, facets)


# ------------------------------------------------------------------------------- one model, by hand


NOT_SHOWN = ("k_when_smaller", "swapped", "vectors", "full")


@app.command(rich_help_panel=ONE_MODEL)
@takes_settings
def measure(
    model: Annotated[str, typer.Argument(help="A directory, or a hub id, also with @REVISION.")],
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="Text to measure at.")],
    *,
    k: Annotated[int, typer.Option(min=1, help="How many singular vectors are compared.")] = 10,
    variant: Annotated[
        VariantName | None, typer.Option(help=f"Which mis-coupling; default: {DEFAULT_VARIANT}.")
    ] = None,
    settings: Annotated[Extract, But(without=NOT_SHOWN, also={"tokens": "--token"})],
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("coupling.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure one model at your own prompts: a table on the screen and one picture.

    Example:  `blockcoupling measure HuggingFaceTB/SmolLM2-135M "The capital of France is"`
    """
    from blockcoupling.figures.quick import picture_format, quick_picture
    from blockcoupling.reduce.summary import summary

    picture_format(out)
    if variant is None:
        preset = settings.preset
        variant = DEFAULT_VARIANT if preset is None else PRESETS[preset].variants[0]
    settings = settings.model_copy(update={"k": k, **kept_for([variant])})
    ds = measured(model, prompts, settings)
    quick_picture(ds, k, variant, model, out)
    table = summary(ds, k, variant)
    typer.echo(table.to_json(orient="records", indent=2) if as_json else table.to_string())
    typer.echo(f"picture: {out}", err=True)


def measured(name: str, prompts: list[str], options: Extract) -> "xr.Dataset":
    """Load a model and measure prompts on it.

    Args:
        name: A directory, or a hub id (with `@revision`).
        prompts: The texts.
        options: What to measure, and how.

    Raises:
        UserError: The model, a prompt or a setting cannot be used.
    """
    from blockcoupling.measurement.measure import measure
    from blockcoupling.progress import Progress
    from blockcoupling.sources.models import load_model, load_streamed, record_of

    load = load_streamed if options.stream else load_model
    loaded, tokenizer = load(record_of(name), options.device, options.dtype)
    with Progress(len(prompts), "measuring", "prompt") as progress:
        return measure(
            loaded,
            tokenizer,
            prompts,
            batch=options.batch,
            progress=progress.advance,
            **options.settings.model_dump(),
        )


# ----------------------------------------------------------------------------- the steps of a study


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


@app.command(rich_help_panel=STEPS)
def train(
    spec: Spec,
    out: Annotated[
        Path | None, typer.Option(help="Where checkpoints go. Default: only states are kept.")
    ] = None,
    states: Annotated[
        Path | None, typer.Option(help="Directory of training states, kept and gone on from.")
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(metavar="0,4,…", help="Instead of the checkpoints in the spec.")
    ] = None,
) -> None:
    """Train a small model from scratch; each checkpoint becomes a directory OUT/stepN.

    With states a training that was killed goes on where it was, and a checkpoint that is added
    later is made from the state before it.

    Example:  `blockcoupling train --out checkpoints/tiny --spec '{"hidden_size": 32, "blocks": 2,
    "heads": 2, "context": 64, "batch": 4, "steps": 20, "learning_rate": 0.001, "seed": 0,
    "checkpoints": [0, 20]}'`
    """
    from blockcoupling.train import keep_states, train

    about = _spec(spec)
    if checkpoints is not None:
        about["checkpoints"] = read_json(f"[{checkpoints}]", "--checkpoints")
    if out is not None:
        train(about, out, states=states)
    elif states is not None:
        keep_states(about, states)
    else:
        raise UserError("say where the checkpoints go, --out, or the states, --states")


@app.command(rich_help_panel=STEPS)
def model(
    spec: Spec,
    out: Out,
    identity: Annotated[
        Path | None,
        typer.Option(help="What decides numbers, and no facts; default: beside, .identity.json."),
    ] = None,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Look a checkpoint up, downloading it if need be, and record what and where it is.

    Example:  `blockcoupling model --out tiny.json --spec '{"name": "tiny", "checkpoint": "main",
    "source": "local", "path": "checkpoints/tiny/step20"}'`
    """
    from blockcoupling.sources.models import model_record, write_record
    from blockcoupling.sources.suite import contradictions

    record = model_record(_spec(spec))
    for contradiction in contradictions(record):
        logging.getLogger(__name__).warning(contradiction)
    write_record(record, out, identity)
    _enter(entries, {"model": out}, _facets(facet))


@app.command(rich_help_panel=STEPS)
def prompts(spec: Spec, out: Out, entries: Entries = None, facet: Facets = None) -> None:
    """Collect the prompts of one dataset in one file, a JSON object with id and text a line.

    Example:  `blockcoupling prompts --out prompts.jsonl --spec '{"source": "builtin", "name":
    "handwritten"}'`
    """
    from blockcoupling.sources.prompts import load_prompts, write_prompts

    write_prompts(load_prompts(_spec(spec)), out)
    _enter(entries, {"prompts": out}, _facets(facet))


@app.command(rich_help_panel=STEPS)
@takes_settings
def extract(
    model: Annotated[Path, typer.Option(help="A model's record, from `blockcoupling model`.")],
    prompts: Annotated[Path, typer.Option(help="JSON lines with id and text.")],
    parts: Annotated[Path, typer.Option(help="Directory that keeps finished prompts.")],
    out: Annotated[Path, typer.Option(help="The store to write, *.zarr.")],
    settings: Extract,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Measure a model at every prompt: Jacobians of its blocks, their singular triples, A.

    Killed and run again, it goes on after the last finished prompt.

    Example:  `blockcoupling extract --model tiny.json --prompts prompts.jsonl --parts parts
    --out svd.zarr --k 10`
    """
    from blockcoupling.measurement.extract import extract as run

    run(model, prompts, parts, out, settings.settings, **settings.job)
    _enter(entries, {"svd": out}, _facets(facet))


@app.command(rich_help_panel=STEPS)
@takes_settings
def tokenwise(
    model: Annotated[Path, typer.Option(help="A model's record, from `blockcoupling model`.")],
    prompts: Annotated[Path, typer.Option(help="JSON lines with id and text.")],
    parts: Annotated[Path, typer.Option(help="Directory that keeps finished prompts.")],
    out: Annotated[Path, typer.Option(help="The store to write, *.zarr.")],
    table: Annotated[Path, typer.Option(help="The table of mis-coupling to write, *.parquet.")],
    settings: Annotated[CompareTokens, But(without=("swapped",))],
    count: Annotated[
        int | None, typer.Option(min=1, help="How many prompts, from the first; default: all.")
    ] = None,
    variant: Annotated[
        list[Variant] | None, typer.Option(help="Which mis-couplings; repeat. Default: all.")
    ] = None,
    tabulated: Annotated[
        list[int] | None, typer.Option(help="Which K in the table; repeat. Default: k.")
    ] = None,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Compare the Jacobians of a prompt's tokens: with themselves, fixed input, fixed output.

    Says first what it will cost, which grows with the cube of the number of tokens. Killed and run
    again, it goes on after the last finished prompt.

    Example:  `blockcoupling tokenwise --model tiny.json --prompts prompts.jsonl --parts parts
    --out tokens.zarr --table tokens.parquet --count 1 --facet model=tiny --facet checkpoint=main
    --facet dataset=mine`
    """
    from blockcoupling.measurement.tokenwise_job import tokenwise as run
    from blockcoupling.reduce.tokenwise import tabulate

    facets = _facets(facet)
    if missing := [name for name in ("model", "checkpoint", "dataset") if name not in facets]:
        raise UserError(f"say what the table is of: --facet {missing[0]}=NAME")
    variants = list(map(str, variant or VARIANTS))
    settings = settings.model_copy(update=kept_for(variants))
    where = settings.only(Loading)
    run(model, prompts, parts, out, settings.settings, count=count, **where)
    tabulate(out, table, tabulated or [settings.k], variants, facets)
    _enter(entries, {"token_products": out, "tokenwise": table}, facets)


@app.command(rich_help_panel=STEPS)
def reduce(
    svd: Annotated[Path, typer.Option(help="A store, from `blockcoupling extract`.")],
    out: Annotated[Path, typer.Option(help="Directory for the tables.")],
    k: Annotated[list[int], typer.Option(help="How many singular vectors to compare; repeat.")],
    variant: Annotated[list[Variant], typer.Option(help="Which mis-coupling; repeat.")],
    workers: Annotated[int | None, typer.Option(help="Threads; default: one a core.")] = None,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Reduce a store to tables: coupling, locality, regularity of trajectories, spectra.

    The facets model, checkpoint and dataset become the first columns of every table; by default
    they are the store's own.

    Example:  `blockcoupling reduce --svd svd.zarr --out tables --k 5 --k 10 --variant frobenius
    --facet model=tiny --facet checkpoint=main --facet dataset=handwritten`
    """
    from blockcoupling.reduce.tables import reduce_store

    facets = _facets(facet)
    written = reduce_store(svd, out, k, list(map(str, variant)), facets or None, workers=workers)
    _enter(entries, {path.stem: path for path in written}, facets)


@app.command(rich_help_panel=STEPS)
def score(
    model: Annotated[Path, typer.Option(help="A model's record, from `blockcoupling model`.")],
    spec: Spec,
    out: Out,
    device: Device = "auto",
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Score a checkpoint: held-out loss and accuracy, benchmarks, scores that were recorded.

    Example:  `blockcoupling score --model tiny.json --out score.parquet --spec '{"heldout": true,
    "harness": {}, "recorded": {}}'`
    """
    from blockcoupling.scores.scores import write_scores

    write_scores(model, _spec(spec), out, device=device)
    _enter(entries, {"score": out}, _facets(facet))


@app.command(rich_help_panel=STEPS)
def entry(
    kind: Annotated[str, typer.Option(help="What it is: model, svd, coupling, figure, …")],
    path: Annotated[Path, typer.Option(help="The file or the Zarr store.")],
    out: Annotated[Path, typer.Option(help="The entry file to write (YAML).")],
    facet: Facets = None,
) -> None:
    """Describe one artifact in an entry file, for `blockcoupling catalog` to join.

    Example:  `blockcoupling entry --kind coupling --path tables/coupling.parquet --out
    entries/coupling.yml --facet model=tiny --facet checkpoint=main --facet dataset=arc`
    """
    from blockcoupling.catalog import write_entry

    write_entry(out, kind, path, _facets(facet))


@app.command(rich_help_panel=STEPS)
def catalog(
    out: Annotated[Path, typer.Option(help="The catalog file to write.")],
    entries: Annotated[
        list[Path] | None, typer.Argument(metavar="[ENTRY...]", help="Entry files.")
    ] = None,
    entries_from: Annotated[
        str | None, typer.Option(metavar="FILE", help="A list of them, one a line; - is stdin.")
    ] = None,
) -> None:
    """Join entry files into one Intake catalog.

    Example:  `blockcoupling catalog --out catalog.yml entries/*.yml`
    """
    from blockcoupling.catalog import join

    files = list(entries or [])
    if entries_from is not None:
        listed = sys.stdin.read() if entries_from == "-" else read_text(Path(entries_from))
        files += [Path(line) for line in listed.splitlines() if line]
    if not files:
        raise UserError("no entry files: name some, or a list of them with --entries-from")
    join(files, out)


@app.command(rich_help_panel=STEPS)
def correlate(
    catalog: CatalogFile,
    out: Annotated[Path, typer.Option(help="The correlation table; the others go beside it.")],
    k: Annotated[int, typer.Option(min=1, help="How many singular vectors.")] = 10,
    variant: Annotated[VariantName, typer.Option(help="Which mis-coupling.")] = DEFAULT_VARIANT,
    checkpoints: Annotated[
        Checkpoints, typer.Option(help="Which are points of the correlation.")
    ] = Checkpoints.all,
    score: Annotated[
        str | None,
        typer.Option(help="The score that figures and report are about. Default: all there are."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The metric of it, likewise.")] = None,
    bootstrap: Annotated[int, typer.Option(help="Resamples for the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    entries: Entries = None,
) -> None:
    """Hold the measurements of a catalog against the scores in it.

    Example:  `blockcoupling correlate --catalog catalog.yml --out statistics/correlation.parquet`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.statistics.write import write_statistics

    written = write_statistics(
        open_catalog(catalog),
        out,
        k=k,
        variant=variant,
        checkpoints=checkpoints.value,
        score=score,
        metric=metric,
        resamples=bootstrap,
        seed=seed,
    )
    _enter(entries, written)


@app.command(rich_help_panel=STEPS)
def costs(
    benchmarks: Annotated[Path, typer.Option(help="Directory of Snakemake's benchmark files.")],
    catalog: CatalogFile,
    out: Out,
    entries: Entries = None,
) -> None:
    """Tabulate what the jobs of a study took: time, processor, memory.

    Example:  `blockcoupling costs --benchmarks results/ladder/benchmarks --catalog
    results/ladder/catalog/measurements.yml --out costs.parquet`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.statistics.costs import write_costs

    write_costs(benchmarks, open_catalog(catalog), out)
    _enter(entries, {"costs": out})


@app.command(rich_help_panel=STEPS)
def figure(
    name: Annotated[str, typer.Argument(help="Which one; docs/figures.md lists them.")],
    catalog: CatalogFile,
    out: Annotated[Path, typer.Option(help="File name without its ending.")],
    format: Annotated[
        list[str] | None, typer.Option(help="`png`, `pdf`, `svg`; repeat. Default: png, pdf.")
    ] = None,
    entries: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write DIR/NAME.FORMAT.yml.")
    ] = None,
) -> None:
    """Draw one figure of a study, reading everything through its catalog.

    Example:  `blockcoupling figure emergence --catalog catalog/catalog.yml --out emergence`
    """
    from blockcoupling.catalog import open_catalog, write_entry
    from blockcoupling.figures import draw, save

    out.parent.mkdir(parents=True, exist_ok=True)
    written = save(draw(name, open_catalog(catalog)), out, format or ("png", "pdf"))
    if entries is not None:
        for path in written:
            ending = path.suffix[1:]
            facets = {"figure": name, "format": ending}
            write_entry(entries / f"{name}.{ending}.yml", "figure", path, facets)


@app.command(rich_help_panel=STEPS)
def report(
    catalog: CatalogFile,
    out: Out,
    title: Annotated[str, typer.Option(help="Its heading.")] = "Block coupling",
    final_catalog: Annotated[
        str, typer.Option(help="The catalog that its example of loading results opens.")
    ] = "catalog/catalog.yml",
    entries: Entries = None,
) -> None:
    """Write the report of a study: one HTML file that needs nothing else.

    Example:  `blockcoupling report --catalog catalog/catalog.yml --out report.html`
    """
    from blockcoupling.catalog import open_catalog
    from blockcoupling.report.page import write_report

    write_report(open_catalog(catalog), out, title=title, catalog_path=final_catalog)
    _enter(entries, {"report": out})
