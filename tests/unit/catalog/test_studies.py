"""Catalogs of several people in one: nothing is lost, and nothing is mixed up."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blockcoupling.catalog import join, open_catalog, write_entry
from blockcoupling.catalog.making import making
from blockcoupling.errors import UserError

EXTRACT = ("extract", "--k", "10", "--tolerance", "0.001", "--full")


def a_study(
    place: Path,
    study: str = "demo",
    model: str = "m",
    words: tuple[str, ...] = EXTRACT,
    prompts: str = "{}",
) -> Path:
    """A study with a table, a store's stand-in and prompts; returns its catalog."""
    results = place / "results"
    results.mkdir(parents=True)
    facets = {"model": model, "checkpoint": "main", "dataset": "d"}
    (results / "prompts.jsonl").write_text(prompts)
    (results / "report.html").write_text(study)
    pd.DataFrame({"model": [model], "coupling": [-0.5]}).to_parquet(results / "coupling.parquet")
    (results / "svd.json").write_text("{}")
    made: dict[str, Any] = {"coupling": ("reduce", "--k", "10"), "svd": words}
    files = {"coupling": "coupling.parquet", "svd": "svd.json", "prompts": "prompts.jsonl"}
    for kind, file in {**files, "report": "report.html"}.items():
        own = {"prompts": {"dataset": "d"}, "report": {}}.get(kind, facets)
        write_entry(
            place / "entries" / f"{kind}.yml",
            kind,
            results / file,
            own,
            making(made.get(kind, ()), {}),
        )
    out = place / "catalog" / "catalog.yml"
    join((place / "entries").glob("*.yml"), out, study=study, results=results)
    return out


@pytest.mark.parametrize("opened", ["at once", "joined", "one after another"])
@pytest.mark.parametrize(
    ("names", "labels"),
    [(("ours", "theirs"), ("ours", "theirs")), (("demo", "demo"), ("demo-1", "demo-2"))],
)
def test_two_catalogs_in_one_keep_everything(
    tmp_path: Path, opened: str, names: tuple[str, str], labels: tuple[str, str]
):
    files = [a_study(tmp_path / f"{n}", name) for n, name in enumerate(names)]
    alone = [open_catalog(file) for file in files]
    catalog = open_catalog(files) if opened == "at once" else join(files, tmp_path / "both.yml")
    if opened == "one after another":
        third = a_study(tmp_path / "2", "another")
        catalog = join([tmp_path / "both.yml", third], tmp_path / "all.yml")
        assert catalog["another/report"].read() == "another"
        assert len(catalog.search(study="another")) == len(alone[0])
    for label, one in zip(labels, alone, strict=True):
        found = catalog.search(study=label)
        assert list(found) == sorted(f"{label}/{name}" for name in one)
        assert [found.path(f"{label}/{name}") for name in one] == [one.path(name) for name in one]
        assert catalog.one(kind="report", study=label).read() == one["report"].read()
    with pytest.raises(UserError, match="expected one entry"):
        catalog.one(kind="report")
    assert set(labels) <= set(catalog.facets()["study"])


def test_one_catalog_in_a_list_and_the_stages_of_one_study_keep_their_names(tmp_path: Path):
    file = a_study(tmp_path / "a")
    assert list(open_catalog([file])) == list(open_catalog(file))
    with pytest.raises(UserError, match="report is claimed by 2 files"):
        open_catalog([file, file])


def test_a_combined_catalog_that_is_joined_with_one_of_the_same_name(tmp_path: Path):
    files = [a_study(tmp_path / str(n)) for n in range(3)]
    join(files[:2], tmp_path / "both.yml")
    catalog = join([tmp_path / "both.yml", files[2]], tmp_path / "all.yml")
    assert catalog.facets()["study"] == ["demo", "demo-1", "demo-2"]


def test_a_study_may_not_lead_out_of_its_own_directory(tmp_path: Path):
    ours, theirs = a_study(tmp_path / "a", "ours"), a_study(tmp_path / "b", "theirs")
    outside = shutil.move(tmp_path / "b/results/report.html", tmp_path / "a/their report.html")
    (tmp_path / "b/results/report.html").symlink_to(outside)
    with pytest.raises(UserError, match="is outside"):
        open_catalog([ours, theirs])["theirs/report"]
    assert open_catalog([ours, theirs], allow_outside=True)["theirs/report"].read() == "theirs"


def test_tables_that_can_be_compared_are_stacked(tmp_path: Path):
    more = (*EXTRACT[:-1], "--swapped", "--seed", "3", "--device", "cuda")
    files = [a_study(tmp_path / "a", "a"), a_study(tmp_path / "b", "b", "other", more)]
    catalog = open_catalog(files)
    assert set(catalog.search(kind="coupling").frame()["model"]) == {"m", "other"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "m"}, "coupling/m/main/d is in a and b"),
        ({"prompts": "{ }"}, "the prompts of d differ between a and b"),
        (
            {"words": ("extract", "--k", "10", "--tolerance", "0.01")},
            "the setting tolerance of extract is 0.001 in a and 0.01 in b",
        ),
        (
            {"words": (*EXTRACT, "--final-norm")},
            "the setting final-norm of extract is its default in a and on in b",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], said: str
):
    files = [
        a_study(tmp_path / "a", "a"),
        a_study(tmp_path / "b", "b", **{"model": "n", **changes}),
    ]
    catalog = open_catalog(files)
    with pytest.raises(UserError) as refused:
        catalog.search(kind="coupling").frame()
    assert f"- {said}\n" in str(refused.value)
    assert str(refused.value).count("\n- ") == 1
    assert len(catalog.search(kind="coupling", study="a").frame()) == 1
