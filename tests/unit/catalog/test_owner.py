"""One catalog file is one study's: another study does not take its entries away."""

import shutil
import sys

import pandas as pd
import pytest
import yaml

from blockcoupling.catalog import join, open_catalog, taken, write_entry
from blockcoupling.catalog.owner import Owner, owner_of
from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config


@pytest.fixture
def entry(tmp_path):
    table = tmp_path / "results" / "a" / "t.parquet"
    table.parent.mkdir(parents=True)
    pd.DataFrame({"a": [1]}).to_parquet(table)
    write_entry(tmp_path / "e.yml", "score", table)
    return tmp_path / "e.yml"


def test_another_study_is_refused_and_the_entries_stay(entry, tmp_path):
    file = tmp_path / "catalog" / "shared.yml"
    results = tmp_path / "results"
    join([entry], file, study="a", results=results / "a")
    before = file.read_bytes()
    for study, own in (("b", results / "b"), ("b", results / "a"), ("a", results / "b")):
        with pytest.raises(UserError, match="is the catalog of the study 'a', whose results"):
            join([], file, study=study, results=own)
        said = taken(file, study, own)
        assert said is not None
        assert "\n" not in said
    assert file.read_bytes() == before
    assert taken(file, "a", results / "a") is None
    assert len(join([entry], file, study="a", results=results / "a")) == 1


def test_a_catalog_moved_with_its_study_stays_its_own(entry, tmp_path):
    file = tmp_path / "catalog" / "c.yml"
    join([entry], file, study="a", results=tmp_path / "results" / "a")
    moved = tmp_path / "moved"
    moved.mkdir()
    for folder in ("catalog", "results"):
        shutil.move(tmp_path / folder, moved / folder)
    assert taken(moved / "catalog" / "c.yml", "a", moved / "results" / "a") is None


def test_results_moved_and_linked_back_stay_the_studys_own(entry, tmp_path):
    file = tmp_path / "catalog" / "c.yml"
    join([entry], file, study="a", results=tmp_path / "results" / "a")
    (tmp_path / "big" / "disk").mkdir(parents=True)
    shutil.move(tmp_path / "results", tmp_path / "big" / "disk" / "results")
    (tmp_path / "results").symlink_to(tmp_path / "big" / "disk" / "results")
    assert taken(file, "a", tmp_path / "results" / "a") is None
    assert taken(file, "b", tmp_path / "results" / "a") is not None


def test_whose_it_is_stands_in_the_catalog(entry, tmp_path):
    file = tmp_path / "catalog" / "c.yml"
    own = join([entry], file, study="a", results=tmp_path / "results" / "a")
    assert owner_of(file) == Owner("a", "../results/a")
    assert own.metadata["study"] == "a"
    assert open_catalog(file).metadata["results"] == "../results/a"


@pytest.mark.parametrize("content", [None, "", "{", '{"version": 2,\n"metadata": {}}', "\0"])
def test_what_is_nobodys_may_be_written(tmp_path, content):
    file = tmp_path / "c.yml"
    if content is not None:
        file.write_text(content)
    assert owner_of(file) is None
    assert taken(file, "a", tmp_path) is None


def test_a_catalog_made_by_hand_belongs_to_nobody(entry, tmp_path):
    join([entry], tmp_path / "c.yml")
    assert owner_of(tmp_path / "c.yml") is None


def test_the_check_of_a_study_says_so_before_anything_runs(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = {"hidden_size": 32, "blocks": 2, "heads": 2, "context": 64, "batch": 4, "steps": 4}
    tiny |= {"learning_rate": 0.001}
    study = {"study": "b", "catalog": "catalog/shared.yml"}
    study["models"] = {"tiny": {"source": "train", "train": tiny, "checkpoints": [0, 4]}}
    load_config(study)
    join([entry], "catalog/shared.yml", study="a", results="results/a")
    file = tmp_path / "b.yaml"
    file.write_text(yaml.safe_dump(study))
    said = r"catalog: catalog/shared\.yml is the catalog of the study 'a', whose results are in "
    with pytest.raises(UserError, match=said + r"results/a: name another file as `catalog`"):
        load_config(file)
    load_config({**study, "study": "a"})


def test_asking_whose_it_is_loads_no_intake():
    import subprocess

    code = "import sys, blockcoupling.study.check; print('intake' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
