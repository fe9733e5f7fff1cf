"""Lists of figures: one that names a missing file is found."""

import json
from pathlib import Path

import pytest

from blockcoupling.config.study import Study
from blockcoupling.study.drawn import drawn, untrue_lists


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = Study(models={"m": {"id": "some/model"}}, results=tmp_path)
    files = ["emergence.png", "emergence.pdf"]
    for folder, ending in (("figures/text", ""), ("entries/figures/text", ".yml")):
        (tmp_path / folder).mkdir(parents=True)
        for name in files:
            (tmp_path / folder / f"{name}{ending}").write_text("drawn")
    listed = {"figures": {"emergence": dict.fromkeys(files, "digest")}}
    (tmp_path / "figures" / "text.json").write_text(json.dumps(listed))
    return study


def test_a_list_of_files_that_exist_is_true(study):
    assert drawn(study.results / "figures/text.json") == ["emergence.png", "emergence.pdf"]
    assert list(untrue_lists(study)) == []


@pytest.mark.parametrize(
    "lost", ["figures/text/emergence.pdf", "entries/figures/text/emergence.png.yml"]
)
def test_a_list_that_names_a_missing_file_is_not(study, lost):
    (study.results / lost).unlink()
    assert list(untrue_lists(study)) == [study.results / "figures/text.json"]


def test_a_study_without_figures_has_no_list(tmp_path):
    study = Study(models={"m": {"id": "some/model"}}, results=tmp_path)
    assert drawn(tmp_path / "figures/text.json") == []
    assert list(untrue_lists(study)) == []
