"""The catalog: what is entered is found by its facets and read back, wherever the tree is moved."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array
import intake
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from example_store import example

import blockcoupling as bc
from blockcoupling.catalog import KINDS, entry, join, open_catalog, write_entry
from blockcoupling.errors import UserError
from blockcoupling.store.schema import SCHEMA_VERSION

TABLE = pd.DataFrame({"model": ["m"], "k": [10], "coupling": [-0.5]})
MATRIX = xr.Dataset({"mean": (("block", "block_other"), np.eye(3))})
ZARR = {"zarr_format": 3, "consolidated": False}


def check_every_entry(catalog) -> None:
    own = "m/step64/held-out"
    assert catalog["model/m/step64"].read() == {"name": "m", "parameters": 12}
    prompts = catalog["prompts/held-out"].read()
    assert prompts["id"].tolist() == ["007", "2020-01-01"]
    assert prompts["text"][0] == "née"
    pd.testing.assert_frame_equal(catalog[f"coupling/{own}"].read(), TABLE)
    xr.testing.assert_equal(catalog[f"miscoupling/{own}"].read(), MATRIX)
    svd = catalog[f"svd/{own}"].read()
    assert isinstance(svd["A"].data, dask.array.Array)
    assert set(svd["A"].chunksizes["prompt"]) == {1}
    assert len(svd["A"].chunksizes["block"]) == 1
    xr.testing.assert_equal(svd.compute(), example(prompts=3, k=2))
    assert catalog["figure/emergence/png"].read() == b"\x89PNG picture"
    assert catalog["figure/emergence/pdf"].read() == b"%PDF picture"
    assert catalog["report"].read() == "<title>née</title>"


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("opener", [bc.open_catalog, intake.open_catalog, intake.from_yaml_file])
def test_every_entry_reads_back_wherever_the_tree_lies(catalog, tree, opener, tmp_path):
    check_every_entry(opener(str(tree / "catalog" / "catalog.yml")))
    shutil.move(tree, tmp_path / "moved")
    moved = opener(str(tmp_path / "moved" / "catalog" / "catalog.yml"))
    assert len(moved) == 8
    assert sorted(moved) == sorted(catalog)
    check_every_entry(moved)


def test_relative_path_of_the_catalog(catalog, tree, monkeypatch):
    monkeypatch.chdir(tree)
    check_every_entry(open_catalog("catalog/catalog.yml"))


def test_nothing_in_the_files_is_absolute(catalog, tree):
    for file in [tree / "catalog" / "catalog.yml", *(tree / "entries").iterdir()]:
        assert str(tree) not in file.read_text()


def test_a_linked_folder_is_no_detour(catalog, tree, tmp_path):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    shutil.move(tree / "catalog", tmp_path / "elsewhere" / "deep" / "catalog")
    (tree / "catalog").symlink_to(tmp_path / "elsewhere" / "deep" / "catalog")
    check_every_entry(join((tree / "entries").glob("*.yml"), tree / "catalog" / "catalog.yml"))


def test_path_of_an_entry(catalog, tree):
    assert catalog.path("svd/m/step64/held-out") == tree / "results" / "svd.zarr"
    assert catalog.path("model/m/step64") == tree / "results" / "model.json"
    assert catalog.path("report") == tree / "results" / "report.html"


def test_metadata_say_what_it_is_and_where_it_came_from(catalog, tree):
    digest = hashlib.sha256((tree / "results" / "coupling.parquet").read_bytes()).hexdigest()
    metadata = catalog["coupling/m/step64/held-out"].metadata
    assert metadata == {
        "kind": "coupling",
        "model": "m",
        "checkpoint": "step64",
        "dataset": "held-out",
        "source": "blockcoupling reduce",
        "schema_version": SCHEMA_VERSION,
        "created_by": f"blockcoupling {bc.__version__}",
        "digest": digest,
    }


# ---------------------------------------------------------------------------------------- search


def test_search_by_facets(study):
    assert len(study.search(kind="coupling")) == 36
    found = study.search(kind=["coupling", "score"], model="neox-64", checkpoint="step64")
    assert list(found) == [
        "coupling/neox-64/step64/handwritten",
        "coupling/neox-64/step64/heldout",
        "score/neox-64/step64",
    ]
    assert found.facets()["kind"] == ["coupling", "score"]
    assert list(found.search(kind="score")) == ["score/neox-64/step64"]
    assert found["score/neox-64/step64"].read()["metric"].tolist() == ["loss", "accuracy"]


def test_values_are_compared_as_text(study):
    assert len(study.search(schema_version=str(SCHEMA_VERSION))) == len(study)
    assert len(study.search(schema_version=SCHEMA_VERSION)) == len(study)


def test_unknown_facet_lists_the_facets(catalog):
    with pytest.raises(UserError, match=r"unknown facet 'modle'; did you mean model\?"):
        catalog.search(modle="m")


def test_a_value_that_nothing_has_finds_nothing(catalog):
    empty = catalog.search(model="other")
    assert len(empty) == 0
    assert list(empty.search(kind="coupling")) == []
    with pytest.raises(UserError, match="nothing to read"):
        empty.frame()
    with pytest.raises(UserError, match="unknown facet 'kin'"):
        empty.search(kin="coupling")


def test_frame_stacks_tables_and_filters(study):
    found = study.search(kind="coupling", model="neox-64").frame(
        columns=["checkpoint", "dataset", "coupling"],
        filters=[("k", "==", 10), ("variant", "==", "frobenius")],
    )
    assert list(found.columns) == ["checkpoint", "dataset", "coupling"]
    assert found.groupby(["checkpoint", "dataset"]).size().tolist() == [6] * 12


def test_frame_makes_a_row_of_a_record(study):
    found = study.search(kind="model", checkpoint="step0").frame()
    assert sorted(found["name"]) == ["neox-128", "neox-64", "neox-96"]


def test_frame_of_what_is_no_table(catalog):
    with pytest.raises(UserError, match="figure/emergence/pdf is not a table"):
        catalog.search(figure="emergence").frame()


def test_one(catalog):
    assert catalog.one(kind="report").read() == "<title>née</title>"
    with pytest.raises(UserError, match=r"kind='figure', found 2: figure/emergence/pdf, "):
        catalog.one(kind="figure")
    with pytest.raises(UserError, match=r"model='x', found 0: none"):
        catalog.one(model="x")


def test_unknown_name_suggests_one(catalog):
    with pytest.raises(KeyError, match=r"did you mean report\?"):
        catalog["reprot"]


def test_repr_counts_kinds(catalog):
    assert repr(catalog) == (
        "<Catalog: 8 entries: 1 coupling, 2 figure, 1 miscoupling, 1 model, 1 prompts, "
        "1 report, 1 svd>"
    )


@pytest.mark.filterwarnings("ignore:The specified chunks separate")  # not the layout of a store
def test_a_store_that_breaks_the_schema_is_not_handed_out(tmp_path):
    example().drop_vars("S").to_zarr(tmp_path / "svd.zarr", **ZARR)
    write_entry(tmp_path / "e.yml", "svd", tmp_path / "svd.zarr")
    catalog = join([tmp_path / "e.yml"], tmp_path / "c.yml")
    with pytest.raises(UserError, match="S: missing"):
        catalog["svd"].read()


# --------------------------------------------------------------------------------------- writing


def test_the_catalog_depends_on_the_entries_alone(catalog, tree):
    files = sorted((tree / "entries").glob("*.yml"))
    target = tree / "catalog" / "catalog.yml"
    before = target.read_bytes()
    join(reversed(files), target)
    assert target.read_bytes() == before
    join(files[:2], target)
    assert len(open_catalog(target)) == 2  # built from scratch: nothing stays from before


def test_many_writers_lose_no_entry(tmp_path):
    TABLE.to_parquet(tmp_path / "t.parquet")

    def write(n: int) -> Path:
        file = tmp_path / "entries" / f"{n}.yml"
        write_entry(file, "score", tmp_path / "t.parquet", {"model": f"m{n}"})
        return file

    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(write, range(80)))
    assert len(join(files, tmp_path / "catalog.yml")) == 80


def test_no_entries_make_an_empty_catalog(tmp_path):
    catalog = join([], tmp_path / "catalog.yml")
    assert len(catalog) == 0
    assert list(intake.open_catalog(str(tmp_path / "catalog.yml"))) == []


def test_numpy_values_and_paths_become_plain(tmp_path):
    TABLE.to_parquet(tmp_path / "t.parquet")
    facets = {
        "step": np.int64(64),
        "rate": np.float32(0.5),
        "trained": np.bool_(True),
        "from": Path("a/b"),
        "ks": [np.int64(1), 2],
        "nothing": None,
    }
    write_entry(tmp_path / "e.yml", "score", tmp_path / "t.parquet", facets)
    metadata = join([tmp_path / "e.yml"], tmp_path / "c.yml")["score"].metadata
    expected = {"step": 64, "rate": 0.5, "trained": True, "from": "a/b", "ks": [1, 2]}
    assert {key: metadata[key] for key in expected} == expected
    assert "nothing" not in metadata
    assert "ks" not in open_catalog(tmp_path / "c.yml").facets()


def test_names_that_yaml_could_misread(tmp_path):
    TABLE.to_parquet(tmp_path / "t.parquet")
    names = ["1e5", "on", "null", "0x10", "2024-01-01", "1_000", "pythia-6.9b"]
    for name in names:
        write_entry(tmp_path / f"{name}.yml", "score", tmp_path / "t.parquet", {"model": name})
    catalog = join(tmp_path.glob("*.yml"), tmp_path / "catalog" / "c.yml")
    assert catalog.facets()["model"] == sorted(names)
    assert all(len(catalog.search(model=name)) == 1 for name in names)


@pytest.mark.parametrize(
    ("kind", "file", "facets", "message"),
    [
        ("couplings", "t.parquet", {}, r"unknown kind 'couplings'; did you mean coupling\?"),
        ("score", "t.csv", {}, "no reader for .*t.csv: the catalog reads files that end in"),
        ("score", "missing.parquet", {}, "does not exist: make it before"),
        ("score", "t.parquet", {"model": "a/b"}, "not a name .*: a/b"),
        ("score", "t.parquet", {"kind": "x"}, "facets that are set by the catalog itself: kind"),
        ("score", "t.parquet", {"when": object()}, "facet when: a object cannot be stored"),
    ],
)
def test_what_cannot_be_entered(tmp_path, kind, file, facets, message):
    TABLE.to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("a")
    with pytest.raises(UserError, match=message):
        entry(kind, tmp_path / file, facets)
    with pytest.raises(UserError, match=message):
        write_entry(tmp_path / "entry.yml", kind, tmp_path / file, facets)
    assert not (tmp_path / "entry.yml").exists()


def test_a_catalog_stands_for_its_entries(tree, tmp_path):
    files = sorted((tree / "entries").glob("*.yml"))
    whole, part, rest = tree / "whole.yml", tree / "deeper" / "part.yml", tree / "rest.yml"
    join(files, whole)
    join(files[:3], part)
    assert list(join([part, *files[3:]], rest)) == list(open_catalog(whole))
    assert rest.read_bytes() == whole.read_bytes()
    with pytest.raises(UserError, match="is claimed by 2 files"):
        join([part, files[0]], rest)
    shutil.rmtree(tree / "results")
    with pytest.raises(UserError, match=r"part\.yml names .*, which does not exist"):
        join([part], rest)
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"part\.yml is not YAML, or damaged"):
        join([part], rest)


def test_all_problems_of_a_join_are_listed_and_the_old_catalog_stays(catalog, tree):
    files = sorted((tree / "entries").glob("*.yml"))
    again = tree / "again.yml"
    write_entry(again, "report", tree / "results" / "report.html")
    lost = tree / "lost.yml"
    shutil.copy(tree / "results" / "report.html", tree / "other.html")
    write_entry(lost, "report", tree / "other.html", {"model": "x"})
    (tree / "other.html").unlink()
    broken = tree / "broken.yml"
    broken.write_text("{")
    other = tree / "other.yml"
    other.write_text("a: 1")
    before = (tree / "catalog" / "catalog.yml").read_bytes()
    with pytest.raises(UserError) as error:
        join([*files, again, lost, broken, other, tree / "none.yml"], tree / "catalog/catalog.yml")
    for said in (
        "report is claimed by 2 files",
        "other.html, which does not exist",
        "broken.yml is not YAML",
        "other.yml is not an entry file",
        "cannot read the entry file",
    ):
        assert said in str(error.value)
    assert (tree / "catalog" / "catalog.yml").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no catalog at"), ("{", "is not YAML"), ("sources: {}", "is not an Intake 2 catalog")],
)
def test_what_is_no_catalog(tmp_path, content, message):
    if content is not None:
        (tmp_path / "c.yml").write_text(content)
    with pytest.raises(UserError, match=message):
        open_catalog(tmp_path / "c.yml")


def test_a_large_catalog_is_quick_to_search(tmp_path):
    TABLE.to_parquet(tmp_path / "t.parquet")
    described = entry("score", tmp_path / "t.parquet")
    for n in range(300):
        content = {**described, "name": f"score/m{n}", "metadata": {"kind": "score", "model": n}}
        (tmp_path / f"{n}.yml").write_text(yaml.safe_dump(content))
    catalog = join(tmp_path.glob("*.yml"), tmp_path / "catalog" / "c.yml")
    assert [catalog.one(model=n).metadata["model"] for n in (0, 299)] == [0, 299]


def test_every_kind_says_what_it_holds_and_which_command_makes_it():
    assert all(kind.holds and kind.made_by.startswith("blockcoupling ") for kind in KINDS.values())
