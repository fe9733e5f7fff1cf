"""One directory of results is one study's: another one does not write its statistics over them."""

import os
from pathlib import Path
from typing import Any

import pytest

from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config
from blockcoupling.study.results_owner import FILE, claim

TRAIN = {"hidden_size": 16, "blocks": 2, "heads": 2, "steps": 4}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(name: str, catalog: str, results: str = "results/shared") -> Any:
    models = {"a": {"train": TRAIN, "checkpoints": [4]}}
    return load_config({"study": name, "models": models, "results": results, "catalog": catalog})


def made(name: str, catalog: str) -> None:
    claim(study(name, catalog))
    Path(catalog).touch()


def test_another_study_is_refused_before_anything_is_written():
    made("one", "one.yml")
    before = (Path("results/shared") / FILE).read_bytes()
    for name in ("two", "one"):
        with pytest.raises(UserError) as said:
            study(name, "two.yml")
        assert (
            "results: results/shared has the results of the study 'one', whose catalog is "
            "one.yml: name another directory as `results`"
        ) in str(said.value)
    assert (Path("results/shared") / FILE).read_bytes() == before
    claim(study("one", "one.yml"))


def test_an_interrupted_study_keeps_its_results_from_others():
    claim(study("one", "one.yml"))  # no catalog yet
    with pytest.raises(UserError, match="has the results of the study 'one'"):
        study("two", "two.yml")


def test_a_study_may_move_its_catalog():
    made("one", "one.yml")
    Path("one.yml").rename("moved.yml")
    claim(study("one", "moved.yml"))
    with pytest.raises(UserError, match=r"whose catalog is moved\.yml"):
        study("one", "one.yml")


def test_results_that_are_moved_with_their_catalog_stay_their_studys_own(here: Path):
    made("one", "one.yml")
    place = here / "elsewhere"
    place.mkdir()
    Path("results").rename(place / "results")
    Path("one.yml").rename(place / "one.yml")
    os.chdir(place)
    claim(study("one", "one.yml"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"study": 1}'])
def test_a_broken_file_is_written_again(content: str):
    file = Path("results/shared") / FILE
    file.parent.mkdir(parents=True)
    file.write_text(content)
    claim(study("one", "one.yml"))
    assert '"one"' in file.read_text()
