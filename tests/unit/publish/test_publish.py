"""A published study is a dataset, a catalog and a crate, and holds the study's numbers."""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pandas as pd
import pytest
from catalog.test_http import NoRanges, serving
from example_store import example
from explored_study import write_explored_study
from typer.testing import CliRunner

import blockcoupling as bc
from blockcoupling.catalog import Catalog, join, write_entry
from blockcoupling.catalog.making import making
from blockcoupling.cli import app
from blockcoupling.errors import UserError
from blockcoupling.publish.about import About
from blockcoupling.publish.publishing import MANIFEST, publish
from blockcoupling.store.checksums import verify, write_store

ABOUT = About("A study", "CC-BY-4.0", ["A. B.", "C. D."], "2026-12-01", "0.2.0")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return write_explored_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def published(study: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("published") / "study"
    publish([study.user_parameters["CATALOG_PATH"]], directory, ABOUT)
    return directory


def test_tables_hold_the_numbers_of_the_study(study: Catalog, published: Path) -> None:
    for kind in ("coupling", "tokenwise", "predictors", "correlation"):
        found = pd.read_parquet(published / "tables" / f"{kind}.parquet")
        expected = study.search(kind=kind).frame()
        assert set(found) == set(expected)
        pd.testing.assert_frame_equal(found[list(expected)], expected, check_dtype=False)
    long = pd.read_parquet(published / "tables" / "miscoupling.parquet")
    where = {"model": "neox-b", "checkpoint": "step64", "dataset": "heldout"}
    matrices = study.one(kind="miscoupling", **where).read()
    at = {"variant": "frobenius", "block": 1, "block_other": 2}
    row = long[(long[[*where, *at]] == list((where | at).values())).all(axis=1)]
    m = matrices["miscoupling_mean"].sel(**at).to_series()
    assert row.set_index("K")["miscoupling_mean"].to_dict() == m.to_dict()


def test_datasets_reads_every_table(published: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    card = (published / "README.md").read_text(encoding="utf-8")
    for table in (published / "tables").iterdir():
        assert f"`{table.stem}`" in card
    for name in ("coupling", "miscoupling"):
        read = load_dataset(str(published), name, split="train", cache_dir=str(tmp_path))
        assert len(read) == len(pd.read_parquet(published / "tables" / f"{name}.parquet"))


def test_croissant_is_valid(published: Path, caplog: pytest.LogCaptureFixture) -> None:
    import mlcroissant

    with caplog.at_level(logging.WARNING):
        described = mlcroissant.Dataset(str(published / "croissant.json"))
    assert not caplog.records
    assert described.metadata.conforms_to[0].endswith("/1.1")
    first = next(iter(described.records("coupling")))
    assert {"coupling/model", "coupling/coupling"} <= set(first)


def test_the_crate_names_what_is_there(published: Path) -> None:
    graph = json.loads((published / "ro-crate-metadata.json").read_text())["@graph"]
    known = {each["@id"] for each in graph}
    root = next(each for each in graph if each["@id"] == "./")
    for part in root["hasPart"]:
        assert (published / part["@id"]).exists()
    actions = [each for each in graph if each["@type"] == "CreateAction"]
    assert {"blockcoupling reduce", "blockcoupling correlate"} <= {each["name"] for each in actions}
    for each in actions:
        linked = [*each["instrument"], *each["result"]]
        assert {link["@id"] for link in linked} <= known


def test_the_manifest_is_of_every_file(published: Path) -> None:
    lines = (published / MANIFEST).read_text().splitlines()
    listed = {name: found for found, name in (line.split("  ", 1) for line in lines)}
    files = {
        file.relative_to(published).as_posix() for file in published.rglob("*") if file.is_file()
    }
    assert set(listed) == files - {MANIFEST}
    for name, found in listed.items():
        assert hashlib.sha256((published / name).read_bytes()).hexdigest() == found


def test_it_is_a_catalog_on_disk_and_by_http(study: Catalog, published: Path) -> None:
    expected = study.search(kind="coupling").frame()
    which = {"kind": "svd", "model": "neox-a", "checkpoint": "step4"}
    s = study.one(**which).read()["S"].load()
    with serving(NoRanges, published) as url:  # as `python -m http.server` answers, without lists
        for place in (published, f"{url}/"):
            catalog = bc.open_catalog(place)
            pd.testing.assert_frame_equal(catalog.search(kind="coupling").frame(), expected)
            assert catalog.one(**which).read()["S"].load().equals(s)


def test_a_published_study_can_be_combined(published: Path, tmp_path: Path) -> None:
    other, out = _other(tmp_path / "other", k=20), str(tmp_path / "both.yml")
    twice = CliRunner().invoke(app, ["combine", str(other), str(other), "--out", out])
    assert twice.exit_code and "given twice" in f"{twice.output}{twice.exception}"
    both = CliRunner().invoke(app, ["combine", str(published), str(other), "--out", out])
    assert not both.exit_code, both.output
    catalog = bc.open_catalog(out, allow_outside=True)
    assert {"m", "neox-a"} <= set(catalog.facets()["model"])


def test_studies_with_other_settings_are_not_combined(tmp_path: Path) -> None:
    files = [_other(tmp_path / f"k{k}", k=k, model=f"m{k}") / "catalog.yml" for k in (5, 20)]
    with pytest.raises(UserError, match=r"the setting k of extract is 20 in .* and 5 in"):
        join(files, tmp_path / "both.yml", comparable=True)
    assert not (tmp_path / "both.yml").exists()


def _other(directory: Path, k: int, model: str = "m") -> Path:
    """A study of one store that says much of the machine that it was made on."""
    directory.mkdir()
    ds = example(2).assign_attrs(model_id="/home/me/models/big", note="and/or")
    write_store(ds, directory / "svd.zarr")
    facets = {"model": model, "checkpoint": "main", "dataset": "d"}
    words = ["extract", "--k", str(k), "--config", "/home/me/study.yaml"]
    prompts = directory / "questions.jsonl"
    prompts.write_text('{"id": "0", "text": "either/or"}\n')
    made = making(words, {"prompts": prompts}, {"path": "/home/me/models/big", "name": model})
    write_entry(directory / "svd.yml", "svd", directory / "svd.zarr", facets, made)
    join(
        [directory / "svd.yml"],
        directory / "catalog.yml",
        study=directory.name,
        results=directory,
        command="snakemake --configfile /home/me/study.yaml",
    )
    return directory


def test_nothing_of_the_machine_is_published(tmp_path: Path) -> None:
    source = _other(tmp_path / "study", k=5)
    publish([source], tmp_path / "out", ABOUT)
    private = ("/home/me", str(tmp_path), str(Path.home()), str(Path.cwd()))
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [text for text in private if text.encode() in content], file
    catalog = bc.open_catalog(tmp_path / "out")
    store = catalog.path("svd/m/main/d")
    verify(store)
    assert catalog["svd/m/main/d"].read().attrs["model_id"] == "big"
    made = catalog.entries["svd/m/main/d"].metadata["made"]
    assert made["command"] == ["blockcoupling", "extract", "--k", "5", "--config", "study.yaml"]
    assert made["inputs"]["prompts"]["path"] == "questions.jsonl"


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    study, mine = _other(tmp_path / "study", k=5), tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has notes\.txt, which was not published"):
        publish([study], mine, ABOUT)
    (mine / "notes.txt").unlink()
    first = publish([study], mine, ABOUT)
    again = publish([mine], tmp_path / "again", ABOUT)
    assert (again.files, again.tables) == (first.files, first.tables)
    assert publish([study], mine, ABOUT).files == first.files


def test_a_study_that_is_gone_half_way_publishes_nothing(tmp_path: Path) -> None:
    study = _other(tmp_path / "half", k=5)
    shutil.rmtree(study / "svd.zarr")
    with pytest.raises(UserError, match=r"svd\.zarr is gone"):
        publish([study], tmp_path / "out", ABOUT)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tmp-*"))
