"""The steps of a study, from models and prompts to tables."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.knobs import read_json, takes_settings
from blockcoupling.cli.options import (
    STEPS,
    Device,
    Entries,
    Facets,
    Out,
    Spec,
    Variant,
    enter,
    read_facets,
    read_spec,
)
from blockcoupling.config.damage import CauseDamage
from blockcoupling.config.measurement import CompareTokens, Extract, Loading, kept_for
from blockcoupling.config.reduce import ClusterKind, WorkerJob
from blockcoupling.config.section import parse
from blockcoupling.config.variants import OF_BLOCKS
from blockcoupling.errors import UserError

Record = Annotated[Path, typer.Option(help="A model's record, from `blockcoupling model`.")]
Count = Annotated[
    int | None, typer.Option(min=1, help="Number of prompts, from the first; default: all.")
]


@app.command(rich_help_panel=STEPS)
def train(
    spec: Spec,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of checkpoints. Default: only keep states."),
    ] = None,
    states: Annotated[
        Path | None,
        typer.Option(help="Directory of training states, to resume from."),
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(metavar="0,4,…", help="Checkpoints, instead of those in the spec.")
    ] = None,
) -> None:
    """Train a small model from scratch; each checkpoint becomes a directory OUT/stepN.

    With --states, a killed training resumes where it was, and a checkpoint that is added later
    starts from the state before it.

    Example:  `blockcoupling train --out checkpoints/tiny --spec '{"hidden_size": 32, "blocks": 2,
    "heads": 2, "context": 64, "batch": 4, "steps": 20, "learning_rate": 0.001, "seed": 0,
    "checkpoints": [0, 20]}'`
    """
    from blockcoupling.lab.training import keep_states, train

    about = read_spec(spec)
    if checkpoints is not None:
        about["checkpoints"] = read_json(f"[{checkpoints}]", "--checkpoints")
    if out is not None:
        train(about, out, states=states)
    elif states is not None:
        keep_states(about, states)
    else:
        raise UserError("give --out for checkpoints, or --states for states")


@app.command(rich_help_panel=STEPS)
def model(
    spec: Spec,
    out: Out,
    weights: Annotated[
        Path | None,
        typer.Option(help="Record without facts: only facts are added."),
    ] = None,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Look up a checkpoint, download it if needed, and write its record.

    Example:  `blockcoupling model --out tiny.json --spec '{"name": "tiny", "checkpoint": "main",
    "source": "local", "path": "checkpoints/tiny/step20"}'`
    """
    from blockcoupling.sources.models import model_record
    from blockcoupling.sources.records import read_record, with_facts, write_record
    from blockcoupling.sources.suite import contradictions

    about = read_spec(spec)
    record = model_record(about) if weights is None else with_facts(read_record(weights), about)
    for contradiction in contradictions(record):
        logging.getLogger(__name__).warning(contradiction)
    write_record(record, out)
    enter(entries, {"model": out}, read_facets(facet), {"model": weights} if weights else {})


@app.command(rich_help_panel=STEPS)
def prompts(spec: Spec, out: Out, entries: Entries = None, facet: Facets = None) -> None:
    """Collect the prompts of one dataset in a file with one JSON object per line: id and text.

    Images (docs/models.md) are written as id and image, a PNG in base64.

    Example:  `blockcoupling prompts --out prompts.jsonl --spec '{"source": "builtin", "name":
    "handwritten"}'`
    """
    from blockcoupling.sources.image_prompts import load_image_prompts, write_image_prompts
    from blockcoupling.sources.prompts import load_prompts, write_prompts

    about = read_spec(spec)
    if "images" in about:
        write_image_prompts(load_image_prompts(about), out)
    else:
        write_prompts(load_prompts(about), out)
    texts = Path(about.get("path") or "")
    enter(
        entries, {"prompts": out}, read_facets(facet), {"texts": texts} if texts.is_file() else {}
    )


@app.command(rich_help_panel=STEPS)
@takes_settings
def extract(
    model: Record,
    prompts: Annotated[
        Path, typer.Option(help="JSON lines with id and text or, for an image model, id and image.")
    ],
    finished: Annotated[Path, typer.Option("--parts", help="Directory of finished prompts.")],
    out: Annotated[Path, typer.Option(help="The store to write, *.zarr.")],
    settings: Extract,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Measure a model at every prompt: Jacobians of its blocks, their singular triples, A.

    After a kill, it resumes after the last finished prompt.

    Example:  `blockcoupling extract --model tiny.json --prompts prompts.jsonl --parts parts
    --out svd.zarr --k 10`
    """
    from blockcoupling.measurement.extract import extract as run

    run(model, prompts, finished, out, settings.settings, **settings.job)
    enter(entries, {"svd": out}, read_facets(facet), {"model": model, "prompts": prompts})


@app.command(rich_help_panel=STEPS)
@takes_settings
def tokenwise(
    model: Record,
    prompts: Annotated[Path, typer.Option(help="JSON lines with id and text.")],
    parts: Annotated[Path, typer.Option(help="Directory of finished prompts.")],
    out: Annotated[Path, typer.Option(help="The store to write, *.zarr.")],
    table: Annotated[Path, typer.Option(help="The table of mis-coupling to write, *.parquet.")],
    settings: CompareTokens,
    count: Count = None,
    variant: Annotated[
        list[Variant] | None,
        typer.Option(help="Mis-coupling variant; repeat. Default: all."),
    ] = None,
    tabulated: Annotated[
        list[int] | None, typer.Option(help="K in the table; can be repeated. Default: k.")
    ] = None,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Compare the Jacobians of a prompt's tokens: with themselves, fixed input, fixed output.

    It first prints the expected cost, which grows with the cube of the number of tokens. After a
    kill, it resumes after the last finished prompt.

    Example:  `blockcoupling tokenwise --model tiny.json --prompts prompts.jsonl --parts parts
    --out tokens.zarr --table tokens.parquet --count 1 --facet model=tiny --facet checkpoint=main
    --facet dataset=mine`
    """
    from blockcoupling.measurement.tokenwise_job import tokenwise as run
    from blockcoupling.reduce.tokenwise import tabulate

    facets = _whose(facet)
    variants = list(map(str, variant or OF_BLOCKS))
    if kept_for(variants)["swapped"]:
        settings = settings.model_copy(update={"swapped": True})
    where = settings.only(Loading)
    run(model, prompts, parts, out, settings.settings, count=count, **where)
    tabulate(out, table, tabulated or [settings.k], variants, facets)
    made_from = {"model": model, "prompts": prompts}
    enter(entries, {"token_products": out, "tokenwise": table}, facets, made_from)


def _whose(facet: list[str] | None) -> dict[str, str]:
    """The facets that become the first columns of a table: model, checkpoint and dataset."""
    facets = read_facets(facet)
    if missing := [name for name in ("model", "checkpoint", "dataset") if name not in facets]:
        raise UserError(f"the table needs a {missing[0]}: --facet {missing[0]}=NAME")
    return facets


@app.command(rich_help_panel=STEPS)
@takes_settings
def damage(
    model: Record,
    prompts: Annotated[Path, typer.Option(help="JSON lines with id and text.")],
    parts: Annotated[Path, typer.Option(help="Directory of finished texts.")],
    out: Annotated[Path, typer.Option(help="The store to write, *.zarr.")],
    table: Annotated[Path, typer.Option(help="The table of the same results to write, *.parquet.")],
    settings: CauseDamage,
    count: Count = None,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Ablate, exchange, replace and merge blocks, and measure the damage to the model.

    It first prints the number of forward passes. After a kill, it resumes after the last finished
    texts.

    Example:  `blockcoupling damage --model tiny.json --prompts prompts.jsonl --parts parts
    --out damage.zarr --table damage.parquet --count 10 --pairs '{"within": 4}' --facet model=tiny
    --facet checkpoint=main --facet dataset=mine`
    """
    from blockcoupling.lab.ablation.job import cause_damage
    from blockcoupling.lab.ablation.table import tabulate_damage

    facets = _whose(facet)
    job = {name: getattr(settings, name) for name in ("dtype", "device", "batch", "stream")}
    cause_damage(model, prompts, parts, out, settings.settings, count=count, **job)
    tabulate_damage(out, table, facets)
    made_from = {"model": model, "prompts": prompts}
    enter(entries, {"block_damage": out, "damage": table}, facets, made_from)


@app.command(rich_help_panel=STEPS)
def reduce(
    svd: Annotated[Path, typer.Option(help="A store, from `blockcoupling extract`.")],
    out: Annotated[Path, typer.Option(help="Directory for the tables.")],
    k: Annotated[list[int], typer.Option(help="Number of singular vectors; can be repeated.")],
    variant: Annotated[list[Variant], typer.Option(help="Mis-coupling variant; can be repeated.")],
    workers: Annotated[
        int | None,
        typer.Option(help="Threads, processes or jobs; default: one per core."),
    ] = None,
    cluster: Annotated[
        ClusterKind,
        typer.Option(help="Where to compute: threads or processes of this machine, or Slurm jobs."),
    ] = "threads",
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Serve Dask's dashboard and print its address.")
    ] = False,
    job: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help="Resources of each Slurm job: memory_mb, minutes, partition, account, logs.",
        ),
    ] = "{}",
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Reduce a store to tables: coupling, locality, regularity of trajectories, spectra.

    The facets model, checkpoint and dataset become the first columns of every table; default:
    those of the store.

    Example:  `blockcoupling reduce --svd svd.zarr --out tables --k 5 --k 10 --variant frobenius
    --facet model=tiny --facet checkpoint=main --facet dataset=handwritten`
    """
    from blockcoupling.reduce.engine import Engine
    from blockcoupling.reduce.tables import reduce_store

    facets = read_facets(facet)
    asks = parse(WorkerJob, read_json(job, "--job"), "--job")
    engine = Engine(cluster, workers, dashboard, asks)
    written = reduce_store(svd, out, k, list(map(str, variant)), facets or None, engine=engine)
    enter(entries, {path.stem: path for path in written}, facets, {"svd": svd})


@app.command(rich_help_panel=STEPS)
def score(
    model: Record,
    spec: Spec,
    out: Out,
    device: Device = "auto",
    kept: Annotated[
        Path | None,
        typer.Option(help="Directory of evaluations, which are not made a second time."),
    ] = None,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Score a checkpoint: held-out loss and accuracy, benchmarks, recorded scores.

    Example:  `blockcoupling score --model tiny.json --out score.parquet --spec '{"heldout": true,
    "harness": {}, "recorded": {}}'`
    """
    from blockcoupling.scores.scores import write_scores

    about = read_spec(spec)
    write_scores(model, about, out, device=device, kept=kept)
    tasks = about.get("harness", {}).items()
    questions = {
        f"questions {name}": Path(task["path"]) for name, task in tasks if task.get("path")
    }
    enter(entries, {"score": out}, read_facets(facet), {"model": model, **questions})


@app.command(rich_help_panel=STEPS)
def weight_spectra(
    model: Record,
    out: Out,
    entries: Entries = None,
    facet: Facets = None,
) -> None:
    """Fit power laws to the spectra of a checkpoint's weight matrices, block by block.

    Example:  `blockcoupling weight-spectra --model tiny.json --out weight_spectra.parquet`
    """
    from blockcoupling.measurement.weight_spectra import write_weight_spectra

    write_weight_spectra(model, out)
    enter(entries, {"weight_spectra": out}, read_facets(facet), {"model": model})
