"""What grows with the size of a study: its graph of jobs, its catalog, the reduction of a store.

python -m benchmarks.scale graph        38 models, 6 datasets, 20 checkpoints; minutes
python -m benchmarks.scale catalog      10,000 entries; seconds
python -m benchmarks.scale reduction    a store of 12 GB, in a temporary directory; minutes
python -m benchmarks.scale many         50 runs, 154 checkpoints, 6 datasets; minutes
python -m benchmarks.scale              all of these
python -m benchmarks.scale planned --study CONFIG     a finished study, where it ran; seconds

Results are kept in benchmarks/scale.json and shown in docs/benchmarks.md.

Seconds are of the wall clock and, in brackets, of processors: on a busy machine, the work takes the
latter.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
MODELS, DATASETS, CHECKPOINTS = 38, 6, 20
ENTRIES = 10_000
RUNS, SAVED = 50, 154
"""PolyPythias: five sizes, ten seeds each, and the checkpoints of every run."""


@dataclass
class Taken:
    """Seconds of the wall clock, and of processors (children's too)."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def timed() -> Iterator[Taken]:
    """Time what is done inside, and the processes that end in it."""
    taken, wall, before = Taken(), time.perf_counter(), _processors()
    yield taken
    taken.wall, taken.cpu = time.perf_counter() - wall, _processors() - before


def _processors() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


# ------------------------------------------------------------------------------------ the graph


def study(models: int) -> dict[str, Any]:
    """A study of models of a hub, which nothing of is fetched for a graph."""
    revisions = [f"step{1000 * n}" for n in range(1, CHECKPOINTS + 1)]
    facts = {"config": {"parameters": 1.6e8, "blocks": 12, "dimension": 768}}
    return {
        "study": "large",
        "models": {
            f"model{n:02d}": {"id": f"of/model{n:02d}", "checkpoints": revisions, "facts": facts}
            for n in range(models)
        },
        "datasets": {
            f"set{n}": {"name": "heldout", "prompts": 8, "seed": n} for n in range(DATASETS)
        },
    }


def graph() -> dict[str, Any]:
    """Build the graph of a large study; then, with all of it there, that of one more model."""
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "large.yaml"
        config.write_text(yaml.safe_dump(study(MODELS)))
        with timed() as first:
            fresh = _dry_run(config)
        _make_everything(config)
        with timed() as second:
            nothing = _dry_run(config)
        config.write_text(yaml.safe_dump(study(MODELS + 1)))
        with timed() as third:
            added = _dry_run(config)
    return {
        "jobs": sum(fresh.values()),
        "fresh": asdict(first),
        "nothing to do": asdict(second),
        "jobs then": sum(nothing.values()),
        "one model more": asdict(third),
        "jobs of it": added,
    }


def _dry_run(config: Path) -> dict[str, int]:
    """The jobs that Snakemake would run, by their rule."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--configfile", str(config), "--dry-run", "--quiet", "rules"]
    asked = subprocess.run(command, cwd=config.parent, capture_output=True, text=True, check=True)
    rules: Counter[str] = Counter()
    for line in (asked.stdout + asked.stderr).splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdigit() and words[0] != "total":
            rules[words[0]] = int(words[1])
    return dict(rules)


def _make_everything(config: Path) -> None:
    """Put an empty file where each job's output would be, all of one time."""
    command = [sys.executable, "-m", "blockcoupling.study.planned", str(config)]
    command += [str(REPOSITORY / "Snakefile")]
    asked = subprocess.run(command, cwd=config.parent, capture_output=True, text=True, check=True)
    now = time.time() - 10
    for job in map(json.loads, asked.stdout.splitlines()):
        for output in job["outputs"]:
            path = config.parent / output
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (now, now))


# ---------------------------------------------------------------------------------- the catalog


def catalog() -> dict[str, Any]:
    """Open a catalog of many entries, and search it by facets."""
    from blockcoupling.catalog import join, open_catalog, write_entry

    with tempfile.TemporaryDirectory() as place:
        results = Path(place) / "results" / "large"
        files = []
        for n in range(ENTRIES):
            facets = {
                "model": f"model{n % 40:02d}",
                "checkpoint": f"step{n // 40 % 50}",
                "dataset": f"set{n // 2000}",
            }
            table = results / "tables" / str(n) / "coupling.parquet"
            table.parent.mkdir(parents=True)
            table.write_bytes(b"")
            files.append(results / "entries" / f"{n}.yml")
            write_entry(files[-1], "coupling", table, facets)
        out = Path(place) / "catalog" / "large.yml"
        with timed() as joining:
            join(files, out)
        with timed() as opening:
            opened = open_catalog(out)
        searches = []
        for n in range(21):
            with timed() as searching:
                found = opened.search(kind="coupling", model=f"model{n:02d}", dataset="set1")
            assert len(found) == 50, len(found)
            searches.append(searching.wall)
    return {
        "entries": len(opened),
        "join": asdict(joining),
        "open": asdict(opening),
        "search": median(searches),
        "slowest search": max(searches),
    }


# ------------------------------------------------------------------------------------- PolyPythias


def many() -> dict[str, Any]:
    """Plan a study of 46,200 stores, open a catalog of its size, and write a prompt's part."""
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "many.yaml"
        revisions = [f"step{1000 * n}" for n in range(SAVED)]
        models = {
            f"run{n:02d}": {**about, "checkpoints": revisions}
            for n, about in enumerate(study(RUNS)["models"].values())
        }
        config.write_text(yaml.safe_dump({**study(1), "models": models}))
        command = [sys.executable, "-m", "blockcoupling", "plan", "--json", "--config", str(config)]
        with timed() as planning:
            asked = subprocess.run(command, cwd=place, capture_output=True, check=True)
        stores = RUNS * SAVED * DATASETS
        return {
            "jobs": json.loads(asked.stdout)["totals"]["jobs"],
            "stores": stores,
            "plan": asdict(planning),
            **{f"open {n}": _opening(Path(place), n) for n in (stores, 10 * stores)},
            "part": _writing(Path(place) / "parts"),
        }


def _opening(place: Path, entries: int) -> dict[str, Any]:
    """Open a catalog of so many entries, each with its provenance; ten for each store."""
    from blockcoupling.catalog import open_catalog
    from blockcoupling.catalog.catalog_file import write_catalog

    made = {"command": ["blockcoupling", "reduce", *12 * ["--option", 40 * "x"]]}
    made |= {"inputs": {"svd": {"digest": 64 * "a", "path": 80 * "b"}}}
    each = entries // RUNS // SAVED // DATASETS
    found = {}
    for n in range(entries):
        run, saved, dataset = (
            n // each % RUNS,
            n // each // RUNS % SAVED,
            n // each // RUNS // SAVED,
        )
        of = {"model": f"run{run:02d}", "checkpoint": f"step{saved}", "dataset": f"set{dataset}"}
        kind = "coupling" if n % each == 0 else f"kind{n % each}"
        name = "/".join([kind, *of.values()])
        path = str(place / "results" / f"{name}.parquet")
        found[name] = {"path": path, "metadata": {"kind": kind, **of, "made": made}}
    out = place / "catalog.yml"
    write_catalog(out, found, {})
    del found
    with timed() as opening:
        opened = open_catalog(out)
    assert len(opened) == entries
    with timed() as searching:
        opened.search(kind="coupling", model="run03", dataset="set1")
    return asdict(opening) | {"megabytes": out.stat().st_size / 1e6, "search": searching.wall}


def _writing(parts: Path) -> dict[str, float]:
    """Seconds of writing a prompt's part, checked, of a model of 32 blocks with K = 10."""
    import numpy as np

    from blockcoupling.store.svd import SVD

    sys.path.append(str(REPOSITORY / "tests" / "unit"))
    from example_store import example

    one = example(1, blocks=32, k=10, embed=64, tokens=40, swapped=True, overlaps=True)
    taken = []
    for n in range(21):
        part = one.assign_coords(prompt=np.array([f"p{n}"], dtype=object))
        with timed() as writing:
            SVD.write(parts, f"p{n}", part, "x")
        taken.append(writing.wall)
    return {"median": median(taken), "bytes": next(parts.glob("*.part")).stat().st_size}


# -------------------------------------------------------------------------- planned and taken


def _took(benchmark: Path) -> float | None:
    """Seconds of a job: of the processor, where other work left it less than a third of a core."""
    if not benchmark.is_file():
        return None
    head, *_, last = (line.split("\t") for line in benchmark.read_text().splitlines())
    row = dict(zip(head, last, strict=True))
    busy = row["mean_load"] not in ("NA", "-") and float(row["mean_load"]) < 33
    return float(row["cpu_time" if busy else "s"])


def planned(config: Path) -> dict[str, Any]:
    """Compare what jobs of a finished study took with what is planned; where it has run.

    Of jobs that shared a process, without its start.
    """
    from blockcoupling import lab
    from blockcoupling.config.steps import steps
    from blockcoupling.study.check import load_config
    from blockcoupling.study.needs import needs_of
    from blockcoupling.study.rates import rates_of

    lab.join()
    found = load_config(config)
    sharing = {model for models in found.chunks().values() for model in models}
    lines: dict[str, list[float]] = {}
    for step in steps():
        for job in step.wildcards(found) if step.needs is not None else []:
            file = found.results.joinpath("benchmarks", step.name, *job.values())
            if took := _took(file.with_name(f"{file.name}.tsv")):
                needs = needs_of(found, step.name, job)
                start = needs.starting if job["model"] in sharing else 0.0
                line = lines.setdefault(step.name, [0, 0.0, 0.0])
                new = (1, 60 * (needs.expected - start), took)
                lines[step.name] = [a + b for a, b in zip(line, new, strict=True)]
    return {"study": found.study, "rates": str(rates_of(found).processor), "steps": lines}


# -------------------------------------------------------------------------------- the reduction


def reduction(gigabytes: float) -> dict[str, Any]:
    """Reduce a store, on threads, and read the same store once: in processes of their own.

    A quarter of it first: what memory does not grow from there, it grows with no store.
    """
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
        sizes = [gigabytes / 4, gigabytes]
        found = {}
        for size in sizes:
            store = Path(place) / f"{size:g}" / "svd.zarr"
            prompts, held = repeated(store, size)
            found[f"{size:g} GB"] = {
                "prompts": prompts,
                "bytes": held,
                "read": _apart("_read", str(store)),
                "reduce": _apart("_reduce", str(store)),
            }
    return found


def repeated(store: Path, gigabytes: float) -> tuple[int, int]:
    """Write a store of one prompt, again and again; how many times, and bytes of numbers."""
    import numpy as np

    from blockcoupling.store.svd import SVD

    base = _one_prompt()
    each = sum(variable.nbytes for variable in base.data_vars.values())
    prompts = max(2, round(gigabytes * 1e9 / each))
    names = [f"p{n}" for n in range(prompts)]
    parts = store.parent / "parts"
    for name in names:
        part = base.assign_coords(prompt=np.array([name], dtype=object))
        SVD.write(parts, name, part, "x")
    SVD.join(parts, store, dict.fromkeys(names, "x"))
    shutil.rmtree(parts)
    return prompts, prompts * each


@cache
def _one_prompt() -> Any:
    sys.path.append(str(REPOSITORY / "tests" / "unit"))
    from example_store import example

    return example(1, blocks=32, k=50, embed=64, tokens=4, swapped=True)


def _read(store: Path) -> None:
    """Read every number of a store, 32 prompts at a time."""
    from blockcoupling.store.svd import open_store

    ds = open_store(store)
    for start in range(0, ds.sizes["prompt"], 32):
        ds.isel(prompt=slice(start, start + 32)).load(num_workers=1)


def _reduce(store: Path) -> None:
    from blockcoupling.reduce.engine import Engine
    from blockcoupling.reduce.tables import reduce_store

    whose = dict.fromkeys(("model", "checkpoint", "dataset"), "x")
    out = store.parent / "tables"
    reduce_store(store, out, [1, 2, 5, 10, 20, 30, 50], None, whose, engine=Engine("threads", 1))


def _apart(what: str, store: str) -> dict[str, float]:
    """Do it in a process of its own: its seconds, and the peak of its memory."""
    command = [sys.executable, "-m", "benchmarks.scale", "--apart", what, store]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(asked.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------- the page

FOUND = REPOSITORY / "benchmarks" / "scale.json"
HEADING = "## What grows with a study"


def keep(what: str, made: dict[str, Any]) -> None:
    """Keep what was measured, with its day, and rewrite its section of docs/benchmarks.md."""
    found = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    made = made | {"day": str(date.today())}
    found[what] = {**found.get(what, {}), made["study"]: made} if what == "planned" else made
    FOUND.write_text(json.dumps(found, indent=2) + "\n")
    page = REPOSITORY / "docs" / "benchmarks.md"
    page.write_text(page.read_text().split(HEADING)[0].rstrip() + "\n\n" + section())


def section() -> str:
    """The section of the page about what was measured so far; empty where nothing was."""
    if not FOUND.exists():
        return ""
    found, lines = json.loads(FOUND.read_text()), []
    if one := found.get("graph"):
        lines += [
            f"| graph of {one['jobs']:,} jobs ({MODELS} models, {DATASETS} datasets, {CHECKPOINTS} "
            f"checkpoints), `snakemake --dry-run` | {_seconds(one['fresh'])} | < 60 s "
            f"| {one['day']} |",
            f"| the same, with all results present | {_seconds(one['nothing to do'])} | "
            f"| {one['day']} |",
            f"| one model more: {_listed(one['jobs of it'])} | {_seconds(one['one model more'])} "
            f"| exactly its jobs and the joins | {one['day']} |",
        ]
    if one := found.get("catalog"):
        day = one["day"]
        lines += [
            f"| catalog of {one['entries']:,} entries, opened | {_seconds(one['open'])} | < 2 s "
            f"| {day} |",
            f"| a search by three facets in it | {1000 * one['search']:.0f} ms | < 50 ms | {day} |",
        ]
    if one := found.get("many"):
        day, stores = one["day"], one["stores"]
        lines += [
            f"| {stores:,} stores ({RUNS} runs, {SAVED} checkpoints, {DATASETS} datasets; "
            f"{one['jobs']:,} jobs), `blockcoupling plan` | {_seconds(one['plan'])} | < 60 s "
            f"| {day} |",
        ]
        for count in (stores, 10 * stores):
            opened = one[f"open {count}"]
            lines.append(
                f"| catalog of {count:,} entries with provenance ({opened['megabytes']:,.0f} MB), "
                f"opened | {_seconds(opened)} | {'< 2 s' if count == stores else ''} | {day} |"
            )
        part = one["part"]
        lines.append(
            f"| a prompt's part checked and written ({part['bytes'] / 1e6:.1f} MB, one file with a "
            f"checksum) | {1000 * part['median']:.0f} ms | ≤ 50 ms | {day} |"
        )
    for name, one in found.get("reduction", {}).items():
        if name != "day":
            ratio = one["reduce"]["cpu"] / one["read"]["cpu"]
            lines.append(
                f"| store of {name} ({one['prompts']} times one prompt) reduced, compared with "
                f"reading it: {_seconds(one['reduce'])}, {_seconds(one['read'])}; peak of memory "
                f"{one['reduce']['peak'] / 1e9:.2f} GB | {ratio:.2f} × | ≤ 1.5 × "
                f"| {found['reduction']['day']} |"
            )
    return (
        f"{HEADING}\n\n"
        "Written by `python -m benchmarks.scale`. Seconds of the wall clock, on two cores that had "
        "other work\ntoo, and in brackets those of processors.\n\n"
        "| | measured | goal | day |\n|---|--:|--:|--:|\n" + "\n".join(lines) + "\n"
    ) + _planned(found.get("planned", {}))


def _planned(studies: dict[str, Any]) -> str:
    """What the jobs of some studies took, and what was planned."""
    if not studies:
        return ""
    lines = []
    for name, one in studies.items():
        whole = [sum(column) for column in zip(*one["steps"].values(), strict=True)]
        for step, (jobs, plan, took) in {**one["steps"], "all of these": whole}.items():
            lines.append(
                f"| {name} | {step} | {jobs:,.0f} | {plan:,.1f} | {took:,.1f} | {plan / took:.2f} |"
            )
    return (
        "\n## Planned and taken\n\n"
        "Written by `python -m benchmarks.scale planned --study CONFIG`, where that study ran. "
        "Seconds of all jobs\nof a step: planned at the rates that `blockcoupling calibrate` "
        "measured there, and taken, by the wall clock (of the\nprocessor, where other work left a "
        "job less than a third of a core). Jobs that share a process are listed\nwithout its "
        "start; the first training also loads packages. Goal: all within 1.5, each within 2. The "
        "counts\nof calls in study/needs.py were fitted to `demo`, and what a logit and padding "
        "cost in ablation to `smollm2`; sweep.yaml,\nto which nothing was fitted, took 1.4 times "
        "what is planned (0.66 core hours).\n\n"
        "| study | step | jobs | planned | took | planned ÷ took |\n|---|---|--:|--:|--:|--:|\n"
        + "\n".join(lines)
        + "\n"
    )


def _seconds(taken: dict[str, float]) -> str:
    return f"{taken['wall']:.2f} s ({taken['cpu']:.2f} s)"


def _listed(jobs: dict[str, int]) -> str:
    return ", ".join(f"{number} {rule}" for rule, number in jobs.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "what", nargs="*", choices=["graph", "catalog", "many", "reduction", "planned", []]
    )
    parser.add_argument("--gigabytes", type=float, default=12)
    parser.add_argument("--study", type=Path, help="configuration of a finished study")
    parser.add_argument("--dry", action="store_true", help="say it only")
    parser.add_argument("--apart", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.apart:
        from benchmarks.memory import peak_resident

        name, store = chosen.apart
        with timed() as taken:
            {"_read": _read, "_reduce": _reduce}[name](Path(store))
        print(json.dumps(asdict(taken) | {"peak": peak_resident()}))
        return
    todo = chosen.what or every
    print(date.today())
    for what in todo:
        made = {
            "graph": graph,
            "catalog": catalog,
            "many": many,
            "planned": lambda: planned(chosen.study),
            "reduction": lambda: reduction(chosen.gigabytes),
        }[what]()
        print(what, json.dumps(made, indent=2), flush=True)
        if not chosen.dry:
            keep(what, made)


if __name__ == "__main__":
    main()
