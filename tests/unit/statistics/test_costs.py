"""What jobs took: read from benchmark files as Snakemake writes them, summed up, shown."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from blockcoupling.catalog import Catalog, join, write_entry
from blockcoupling.report.page import render
from blockcoupling.statistics.costs import COLUMNS, by_rule, costs, write_costs
from blockcoupling.wording import duration

HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(root: Path, path: str, seconds: float, rss: str, cpu: str) -> None:
    """A file as Snakemake 9 writes it."""
    file = root / f"{path}.tsv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{HEAD}{seconds}\t0:00:01\t{rss}\t1.0\t1.0\t1.0\t0.0\t0.0\t150.5\t{cpu}\n")


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    root = tmp_path / "benchmarks"
    for path, seconds, rss, cpu in [
        ("train/neox-64", 100.0, "700.5", "190.0"),
        ("model/neox-64/step600", 0.4, "NA", "NA"),
        ("prompts/heldout", 2.0, "100.0", "1.0"),
        ("extract/neox-64/step600/heldout", 12.0, "500.0", "11.0"),
        ("extract/neox-64/step0/heldout", 6.0, "400.0", "5.0"),
        ("extract/neox-96/step0/handwritten", 30.0, "900.0", "60.0"),
        ("reduce/neox-64/step0/heldout", 3.0, "300.0", "2.5"),
        # Not of this study, or of no model and no dataset: passed over.
        ("extract/gone/step0/heldout", 999.0, "999.0", "999.0"),
        ("extract/neox-64/step7/heldout", 999.0, "999.0", "999.0"),
        ("extract/neox-64/step0/gone", 999.0, "999.0", "999.0"),
        ("correlate", 999.0, "999.0", "999.0"),
        ("figure/emergence", 999.0, "999.0", "999.0"),
    ]:
        benchmark(root, path, seconds, rss, cpu)
    return root


def test_a_row_for_every_job_of_the_study(benchmarks: Path, study: Catalog) -> None:
    table = costs(benchmarks, study)
    assert list(table.columns) == list(COLUMNS)
    whose = table[["rule", "model", "checkpoint", "dataset"]].fillna("").agg("/".join, axis=1)
    assert whose.tolist() == [
        "train/neox-64//",
        "model/neox-64/step600/",
        "prompts///heldout",
        "extract/neox-64/step0/heldout",
        "extract/neox-64/step600/heldout",
        "extract/neox-96/step0/handwritten",
        "reduce/neox-64/step0/heldout",
    ]
    assert table["seconds"].tolist() == [100.0, 0.4, 2.0, 6.0, 12.0, 30.0, 3.0]
    extraction = table.iloc[4]
    assert extraction["cpu_seconds"] == 11.0
    assert extraction["max_rss_mb"] == 500.0
    assert extraction["mean_load_percent"] == 150.5
    assert extraction["prompts"] == 6  # of the synthetic study
    assert extraction["seconds_per_prompt"] == 2.0
    assert (extraction["parameters"], extraction["blocks"]) == (250_000, 4)
    assert table.iloc[0]["blocks"] == 4  # of a training, its last checkpoint's
    quick, prompts = table.iloc[1], table.iloc[2]
    assert pd.isna(quick["max_rss_mb"])
    assert pd.isna(quick["cpu_seconds"])
    assert pd.isna(prompts["parameters"])


def test_jobs_are_summed_up(benchmarks: Path, study: Catalog) -> None:
    table = costs(benchmarks, study)
    summed = by_rule(table).set_index("rule")
    assert list(summed.index) == ["train", "model", "prompts", "extract", "reduce"]
    extraction = summed.loc["extract"]
    assert extraction["jobs"] == 3
    assert extraction["seconds"] == 48.0
    assert extraction["longest"] == 30.0
    assert extraction["seconds_per_prompt"] == 2.0  # the median of 1, 2 and 5
    assert extraction["max_rss_mb"] == 900.0
    of_models = by_rule(table, "model").set_index(["rule", "model"])
    assert of_models.loc[("extract", "neox-64"), "seconds"] == 18.0
    assert of_models["seconds"].sum() == table["seconds"].sum()


def test_without_benchmarks_the_table_is_empty_and_it_is_said(
    tmp_path: Path, study: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        write_costs(tmp_path / "none", study, tmp_path / "costs.parquet")
    assert "no benchmark files" in caplog.text
    table = pd.read_parquet(tmp_path / "costs.parquet")
    assert table.empty
    assert list(table.columns) == list(COLUMNS)


@pytest.mark.slow
@pytest.mark.parametrize("found", [True, False])
def test_the_report_shows_them(
    found: bool, benchmarks: Path, analysed: Catalog, tmp_path: Path
) -> None:
    root = Path(analysed.path("predictors")).parents[1]
    picture = tmp_path / "emergence.svg"
    picture.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    write_entry(
        tmp_path / "entries" / "f.yml", "figure", picture, {"figure": "emergence", "format": "svg"}
    )
    table = tmp_path / "costs.parquet"
    write_costs(benchmarks if found else tmp_path / "none", analysed, table)
    write_entry(tmp_path / "entries" / "costs.yml", "costs", table)
    files = [*(root / "entries").glob("*.yml"), *(tmp_path / "entries").glob("*.yml")]
    page = render(join(files, tmp_path / "catalog.yml"))
    assert '<div id="costs">' in page
    if found:
        assert "1 min 40 s" in page  # the training
        assert ">900<" in page
        assert "By step and model" in page
    else:
        assert "The costs of the jobs are unknown" in page


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.9, "1 h 00 min"),
        (9000, "2 h 30 min"),
        (float("nan"), "–"),
        (None, "–"),
    ],
)
def test_times_are_written_with_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
