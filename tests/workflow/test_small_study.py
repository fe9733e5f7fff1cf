"""A whole study, run for real: everything is there, once, and only what changed is done again."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gossiping_hub import SECRETS
from running import Workplace

from blockcoupling.catalog import open_catalog
from blockcoupling.catalog.columns import COLUMNS
from blockcoupling.figures import figures_of
from blockcoupling.store.svd import open_store
from blockcoupling.study.check import load_config
from blockcoupling.study.drawn import drawn

pytestmark = pytest.mark.workflow

JOINS = {
    **dict.fromkeys(["catalog_measurements", "correlate", "costs", "catalog_statistics"], 1),
    "figures": 1,
    **dict.fromkeys(["catalog_figures", "explore", "report", "catalog", "all"], 1),
}


def test_everything_is_made(finished: Workplace):
    catalog = open_catalog(finished.directory / "catalog" / "seconds.yml")
    kinds = Counter(catalog[name].metadata["kind"] for name in catalog)
    checkpoints, datasets = 3, 2
    assert kinds["model"] == kinds["score"] == checkpoints
    assert kinds["svd"] == kinds["coupling"] == kinds["trajectory"] == checkpoints * datasets
    listed = drawn(finished.results / "figures" / "text.json")
    assert kinds["figure"] == len(listed) > 5
    assert {Path(name).stem for name in listed} < set(figures_of("text"))
    assert kinds["report"] == kinds["explorer"] == kinds["correlation"] == 1
    for name in catalog:
        assert catalog.path(name).exists()
    assert "<html" in catalog["report"].read()[:1000]
    assert '<a href="explorer.html">' in catalog["report"].read()
    assert "data:index" in catalog["explorer"].read()


def test_the_numbers_are_there_and_finite(finished: Workplace):
    catalog = open_catalog(finished.directory / "catalog" / "seconds.yml")
    coupling = catalog.search(kind="coupling").frame()
    # 3 checkpoints x (2 + 1) prompts x 5 variants x 2 values of K
    assert len(coupling) == 3 * 3 * 5 * 2
    assert np.isfinite(coupling[["coupling", "miscoupling", "adjacent"]]).all(axis=None)
    regularity = catalog.search(kind="trajectory").frame()
    last = regularity.loc[regularity["is_last"], ["line_shape_score", "expodistance"]]
    assert np.isfinite(last).all(axis=None)
    assert np.isfinite(catalog.search(kind="score").frame()["value"]).all()


def test_tables_have_the_columns_of_the_reference(finished: Workplace):
    catalog = open_catalog(finished.directory / "catalog" / "seconds.yml")
    tables = {name: catalog[name].metadata["kind"] for name in catalog}
    checked = {kind: name for name, kind in tables.items() if kind in COLUMNS}
    assert {"coupling", "score"} < set(checked)
    for kind, name in checked.items():
        found = {column: str(dtype) for column, dtype in catalog[name].read().dtypes.items()}
        assert found == {column: each.dtype for column, each in COLUMNS[kind].items()}, kind


def test_every_job_leaves_a_log_and_a_benchmark(finished: Workplace):
    study = load_config(finished.configuration())
    jobs = list(study.jobs())
    for folder, ending in [("logs", "log"), ("benchmarks", "tsv")]:
        for rule in ("extract", "reduce"):
            for model, checkpoint, dataset in jobs:
                place = finished.results / folder / rule / model / checkpoint
                assert (place / f"{dataset}.{ending}").is_file()


def test_what_every_job_took_is_told(finished: Workplace):
    catalog = open_catalog(finished.directory / "catalog" / "seconds.yml")
    costs = catalog.one(kind="costs").read()
    assert costs["rule"].value_counts().to_dict() == {
        **{"train": 2, "checkpoint": 3, "weights": 3, "model": 3, "score": 3, "prompts": 2},
        **{"extract": 6, "reduce": 6},
    }
    assert (costs["seconds"] > 0).all()
    extractions = costs[costs["rule"] == "extract"]
    assert (extractions["max_rss_mb"] > 50).all()  # Python with torch
    assert (extractions["seconds_per_prompt"] * extractions["prompts"]).sum() == pytest.approx(
        extractions["seconds"].sum()
    )


def test_figures_are_about_the_score_that_the_study_names(finished: Workplace):
    catalog = open_catalog(finished.directory / "catalog" / "seconds.yml")
    correlation = catalog.one(kind="correlation").read()
    assert len(correlation[["score", "metric"]].drop_duplicates()) > 1
    headline = correlation.loc[correlation["headline"], ["score", "metric"]].drop_duplicates()
    assert headline.to_numpy().tolist() == [["heldout", "nats_per_byte"]]


def test_secrets_that_were_about_are_in_nothing(finished: Workplace):
    folders = {path.relative_to(finished.directory).parts[0] for path in finished.files()}
    assert {".snakemake", "catalog", "results", "said.txt"} <= folders
    assert finished.holding(*SECRETS) == []


def test_snakemake_makes_its_own_report_too(finished: Workplace):
    run = finished.snakemake("--report", "snakemake.html")
    assert run.status == 0, run.said
    assert "ERROR" not in run.said  # of a caption that is no reStructuredText
    page = (finished.directory / "snakemake.html").read_text()
    assert all(name in page for name in drawn(finished.results / "figures" / "text.json"))


def test_again_there_is_nothing_to_do(copy: Workplace):
    before = copy.written()
    run = copy.snakemake()
    assert run.status == 0
    assert "Nothing to be done" in run.said
    assert copy.written() == before


def test_a_new_model_runs_its_own_jobs_and_the_joins(copy: Workplace):
    models = copy.configuration()["models"]
    models["added"] = models["deeper"]
    copy.configure(models=models)
    checkpoints, datasets = 1, 2
    expected = {
        "train": 1,
        "checkpoint": checkpoints,
        "weights": checkpoints,
        "model": checkpoints,
        "score": checkpoints,
        "extract": checkpoints * datasets,
        "reduce": checkpoints * datasets,
        **JOINS,
    }
    assert copy.snakemake("--dry-run").jobs == expected

    # Run as far as the catalog of what was measured; test_stale.py runs all of it.
    before = copy.written()
    run = copy.snakemake("measurements")
    assert run.status == 0, run.said
    joins = {"catalog_measurements": 1, "measurements": 1}
    assert run.jobs == {rule: n for rule, n in expected.items() if rule not in JOINS} | joins
    after = copy.written()
    measured = "catalog/measurements.yml"
    others = {path for path in before if not path.startswith((measured, "logs/", "benchmarks/"))}
    assert {path: after[path] for path in others} == {path: before[path] for path in others}
    catalog = open_catalog(copy.results / measured)
    assert len(catalog.search(kind="coupling", model="added")) == checkpoints * datasets


def test_a_model_that_is_taken_out_changes_the_joins_only(finished: Workplace):
    models = finished.configuration()["models"]
    del models["deeper"]
    assert finished.planned(models=models) == JOINS


def test_other_tables_need_no_new_extraction(finished: Workplace):
    assert finished.planned(reduce={"k": [1, 2, 4]}) == {"reduce": 6, **JOINS}


def test_another_dataset_needs_no_new_training_or_score(finished: Workplace):
    datasets = finished.configuration()["datasets"] | {"more": {"name": "handwritten"}}
    assert finished.planned(datasets=datasets) == {
        "prompts": 1,
        "extract": 3,
        "reduce": 3,
        **JOINS,
    }


def test_a_study_can_be_moved(finished: Workplace, copy: Workplace):
    moved = open_catalog(copy.directory / "catalog" / "seconds.yml")
    original = open_catalog(finished.directory / "catalog" / "seconds.yml")
    name = "svd/small/step2/heldout"
    assert Path(moved.path(name)).is_relative_to(copy.directory)
    assert moved[name].read().equals(original[name].read())
    assert open_store(moved.path(name)).sizes["prompt"] == 2
