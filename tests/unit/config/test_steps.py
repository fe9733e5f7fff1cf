"""The table of steps: what a study has of each, which files they make, and that kinds agree."""

import subprocess
import sys

import pytest

from blockcoupling.catalog import KINDS
from blockcoupling.config.steps import Step, add, entered_by, step, steps
from blockcoupling.config.study import Study

TEXT = {"train": {"hidden_size": 32, "blocks": 2}, "checkpoints": [0, 8]}
VIT = {"train": {"architecture": "vit", "epochs": 2, "warmup": 0}, "checkpoints": [2], "init": True}
MODELS = {"small": TEXT, "vit": VIT, "hub": {"id": "some/model"}}
DATASETS = {"words": {"name": "handwritten"}, "digits": {"images": {"source": "digits"}}}


@pytest.fixture
def study() -> Study:
    return Study(models=MODELS, datasets=DATASETS, tokenwise={}, damage={"checkpoints": "all"})


def values(study: Study, name: str) -> list[tuple[str, ...]]:
    return [tuple(each.values()) for each in step(name).wildcards(study)]


def test_a_study_has_a_job_for_each_of_what_a_step_is_for(study):
    every = [*(("small", f"step{n}") for n in (0, 8)), ("vit", "init"), ("vit", "epoch2")]
    every.append(("hub", "main"))
    assert values(study, "weights") == values(study, "score") == every
    assert values(study, "extract") == [
        (*each, "digits" if each[0] == "vit" else "words") for each in every
    ]
    assert values(study, "tokenwise") == [
        (*each, "words") for each in every if each[0] != "vit"
    ]  # both checkpoints are ends
    assert values(study, "prompts") == [("words",), ("digits",)]
    assert values(study, "correlate") == values(study, "figures") == [("text",), ("image",)]
    assert values(study, "report") == [()]


def test_the_laboratory_adds_its_steps(study):
    assert values(study, "train") == [("small",), ("vit",)]
    assert values(study, "checkpoint") == [("small", "step0"), ("small", "step8")]
    assert values(study, "image_checkpoint") == [("vit", "epoch2")]
    assert len(values(study, "damage")) == 3
    assert values(study, "damage_statistics") == [()]


def test_a_study_that_does_not_ask_for_a_step_has_no_jobs_of_it():
    plain = Study(models={"hub": {"id": "some/model"}})
    absent = {each.name for each in steps() if not each.wildcards(plain)}
    assert absent == {
        *("train", "checkpoint", "image_checkpoint", "tokenwise", "damage"),
        *("weight_spectra", "damage_statistics", "intervention"),
    }


def test_a_file_is_made_by_one_job():
    both = {name: {**TEXT, "checkpoints": [0, 2]} for name in ("small", "prompts", "text")}
    more = {"damage": {}, "tokenwise": {}, "weight_spectra": True}
    study = Study(models={**MODELS, **both}, datasets=DATASETS, **more)
    made = [
        pattern.format(**wildcards)
        for each in steps()
        for wildcards in each.wildcards(study)
        for pattern in each.outputs
    ]
    assert len(made) == len(set(made))
    assert "svd/small/step0/words/svd.zarr/zarr.json" in made
    assert "entries/small/step0/words/svd.yml" in made
    assert "entries/prompts/words/prompts.yml" in made
    assert "entries/correlate/image/within.yml" in made


def test_kinds_of_the_catalog_are_those_that_steps_make():
    made = {kind: each.verb for each in steps() for kind in each.makes}
    made["figure"] = "figures"  # which there are depends on the numbers
    assert made.keys() == KINDS.keys()
    shown = {kind: f"blockcoupling {verb}" for kind, verb in made.items()}
    shown["figure"] = KINDS["figure"].made_by  # by `figure`, one by one, too
    assert shown == {name: kind.made_by for name, kind in KINDS.items()}


def test_a_join_adds_the_entries_since_the_join_before():
    joined = [each.name for each in steps() if each.catalog]
    assert joined[-1] == steps()[-1].name == "catalog"
    found = [each.name for name in joined for each in entered_by(name)]
    assert found == [each.name for each in steps() if not each.catalog]
    assert [each.name for each in entered_by("catalog")] == ["explore", "report"]


def test_rows_are_added_once_and_in_their_place():
    before = steps()
    add(*before[:2], before="report")
    assert steps() == before
    with pytest.raises(KeyError):
        add(Step("new"), before="no such step")
    assert steps() == before


def test_every_verb_exists():
    from blockcoupling.cli import app

    verbs = {
        each.name or each.callback.__name__.replace("_", "-") for each in app.registered_commands
    }
    assert {each.verb for each in steps()} <= verbs


def test_the_instrument_has_no_step_of_the_laboratory():
    code = (
        "import sys; from blockcoupling.config.steps import steps;"
        "print([s.name for s in steps() if 'lab' in (s.needs or '')],"
        "'torch' in sys.modules, [m for m in sys.modules if m.startswith('blockcoupling.lab')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[] False []"
