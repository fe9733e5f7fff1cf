"""Whatever happened before, one plain run ends as a fresh one; and does no more than it must.

Snakemake and the Snakefile are the real ones, the verbs those of `stub/` (see walk.py).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import walk
import yaml
from walk import Study, Walks, calls, snakemake

from blockcoupling.study import clean
from blockcoupling.study.check import load_config

pytestmark = pytest.mark.workflow

JOINS = {"catalog", "correlate", "costs", "figures", "explore", "report"}


@pytest.fixture(scope="session")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Walks:
    return Walks(tmp_path_factory.mktemp("walks"))


@pytest.fixture(scope="session")
def _finished(walks: Walks) -> Study:
    study = Study(walks.directory / "finished")
    assert snakemake(study.directory) == 0
    return study


@pytest.fixture
def study(_finished: Study, tmp_path: Path) -> Study:
    """A finished study of its own."""
    own = Study(tmp_path / "study")
    shutil.rmtree(own.directory)
    shutil.copytree(_finished.directory, own.directory, symlinks=True)
    calls(own.directory)
    return own


def doomed(study: Study, verb: str, whom: str, *words: str, which: int = 0, writes: int = 0) -> int:
    """A run in which one call of a verb dies, or takes Snakemake along."""
    fate = {"verb": verb, "calls": which, "writes": writes, "whom": whom, "once": True}
    (study.directory / "fate.json").write_text(json.dumps(fate))
    return snakemake(study.directory, *words)


def edited_prompts_and_a_killed_extract(study: Study) -> None:
    study.write("mine.jsonl", 1)
    assert doomed(study, "extract", "job", "--keep-going", which=1) != 0


def another_setting_and_a_killed_extract(study: Study) -> None:
    study.config["extract"]["tolerance"] = 1e-3
    study.configure()
    assert doomed(study, "extract", "job") != 0


def a_killed_run_and_the_old_setting_again(study: Study) -> None:
    study.config["extract"]["tolerance"] = 1e-3
    study.configure()
    assert doomed(study, "reduce", "all", writes=3) != 0
    study.config["extract"]["tolerance"] = 1e-4
    study.configure()


def more_prompts_as_far_as_the_tables(study: Study) -> None:
    study.write("mine.jsonl", 1)
    assert snakemake(study.directory, "--until", "reduce") == 0


def an_extraction_forced_and_interrupted(study: Study) -> None:
    assert doomed(study, "extract", "snakemake", "--forcerun", "extract") != 0


def other_weights_in_the_same_place(study: Study) -> None:
    study.write("local", 1)


def older_weights_in_the_same_place(study: Study) -> None:
    study.write("local", 1, old=True)


def older_prompts_in_the_same_place(study: Study) -> None:
    study.write("mine.jsonl", 1, old=True)


def older_questions_in_the_same_place(study: Study) -> None:
    study.write("questions.jsonl", 1, old=True)


def a_link_to_another_directory(study: Study) -> None:
    study.write("link", 1)


def another_seed_of_the_training(study: Study) -> None:
    study.config["models"]["small"]["train"]["seed"] = 7
    study.configure()


def another_seed_and_a_killed_training(study: Study) -> None:
    another_seed_of_the_training(study)
    assert doomed(study, "train", "all", writes=1) != 0


@pytest.mark.parametrize(
    "happened",
    [
        edited_prompts_and_a_killed_extract,
        another_setting_and_a_killed_extract,
        a_killed_run_and_the_old_setting_again,
        more_prompts_as_far_as_the_tables,
        an_extraction_forced_and_interrupted,
        other_weights_in_the_same_place,
        older_weights_in_the_same_place,
        older_prompts_in_the_same_place,
        older_questions_in_the_same_place,
        a_link_to_another_directory,
        another_seed_of_the_training,
        another_seed_and_a_killed_training,
    ],
)
def test_one_plain_run_ends_as_a_fresh_one(
    study: Study, walks: Walks, happened: Callable[[Study], None]
) -> None:
    before = study.outputs()
    happened(study)
    assert walks.wrong(study) == []
    back = happened in (
        a_killed_run_and_the_old_setting_again,
        an_extraction_forced_and_interrupted,
    )
    assert (study.outputs() == before) == back  # it was about something


def test_a_job_that_waited_while_the_configuration_was_edited_refuses(
    study: Study, walks: Walks
) -> None:
    before, config = study.outputs(), yaml.safe_load((study.directory / "study.yaml").read_text())
    config["extract"]["tolerance"] = 1e-3
    (study.directory / "edited.yaml").write_text(yaml.safe_dump(config))
    (study.directory / "queue.json").write_text(json.dumps({"rule": "extract", "jobs": 1}))
    assert snakemake(study.directory, "--forcerun", "extract") != 0
    said = (study.directory / "snakemake.log").read_text()
    assert "the configuration has changed since the run began" in said
    assert not (study.directory / "edited.yaml").exists()
    (study.directory / "queue.json").unlink()
    study.configure()
    assert walks.wrong(study) == []
    assert study.outputs() == before


@pytest.mark.parametrize(
    "lost",
    [
        "results/walk/tables/local/main/mine/coupling.parquet",
        "results/walk/tables/local/main/mine/miscoupling.zarr",
        "results/walk/figures",
        "results/walk/figures/text/emergence.png",
        "results/walk/entries/figures/text/locality.png.yml",
        "results/walk/scores/small/step8.parquet",
        "results/walk/svd",
        "results/walk/statistics/text/correlation.parquet",
        "results/walk/entries/local",
        "results/walk/checkpoints/small/step8/model.safetensors",
        "results/walk/models",
        "results/walk/training",
        "results/walk/report.html",
        "results/walk/catalog",
        "catalog/walk.yml",
    ],
)
def test_what_was_removed_is_there_again(study: Study, walks: Walks, lost: str) -> None:
    path = study.directory / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert walks.wrong(study) == []
    # States of a training are kept for going on only.
    assert path.exists() == (lost != "results/walk/training")


def test_a_study_that_was_cleaned_has_nothing_to_do(
    study: Study, walks: Walks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study.directory)
    spares = clean.spare(load_config("study.yaml"))
    paths = {str(path) for each in spares for path in each.paths}
    assert "results/walk/training/small/step8.json" in paths
    assert "results/walk/parts/local/main/mine/part.json" in paths
    before = study.outputs()
    clean.free(spares)
    assert snakemake(study.directory) == 0
    assert calls(study.directory) == []
    assert study.outputs() == before
    # A checkpoint that is added later is trained to, and nothing else is done again.
    changed(models__small={"checkpoints": [0, 4, 8]})(study)
    assert walks.wrong(study) == []


def changed(**sections: dict[str, Any]) -> Callable[[Study], None]:
    def change(study: Study) -> None:
        for name, keys in sections.items():
            place = study.config
            for part in name.split("__"):
                place = place[part]
            place.update(keys)
        study.configure()

    return change


def _verbs(study: Study) -> set[str]:
    return {call.split()[0] for call in calls(study.directory)}


@pytest.mark.parametrize(
    ("change", "verbs"),
    [
        (changed(models__small={"family": "b"}), {"model", *JOINS}),
        (changed(extract={"device": "cpu"}), set()),
        (changed(models__small={"checkpoints": [8]}), JOINS),
        (changed(reduce={"k": [2, 4]}), {"reduce", *JOINS}),
        (changed(correlate={"bootstrap": 30}), JOINS - {"costs"}),
        (changed(figures={"formats": ["png", "pdf"]}), {"figures", "report", "catalog"}),
        (changed(score={"name": "mine"}), JOINS - {"costs"}),
    ],
)
def test_what_is_not_touched_is_not_done_again(
    study: Study, walks: Walks, change: Callable[[Study], None], verbs: set[str]
) -> None:
    change(study)
    assert snakemake(study.directory) == 0
    assert _verbs(study) == verbs
    assert walks.wrong(study) == []


EDITS = [
    (changed(extract={"tolerance": 1e-3}), {"extract"}),
    (changed(reduce={"k": [2, 4]}), {"reduce"}),
    (changed(models__small__train={"seed": 7}), {"train", "extract", "reduce", "score"}),
    (lambda study: study.write("mine.jsonl", 1, old=True), {"prompts", "extract", "reduce"}),
    (lambda study: study.write("questions.jsonl", 1, old=True), {"score"}),
    (lambda study: study.write("link", 1), {"model", "extract", "reduce"}),
]


@pytest.mark.parametrize(("change", "verbs"), EDITS)
@pytest.mark.parametrize("forgotten", ["records", "elsewhere", "times alone"])
def test_an_edit_is_noticed_whatever_snakemake_remembers(
    study: Study, walks: Walks, forgotten: str, change: Callable[[Study], None], verbs: set[str]
) -> None:
    words = ["--rerun-triggers", "mtime"] if forgotten == "times alone" else []
    if forgotten == "records":
        shutil.rmtree(study.directory / ".snakemake")
    elif forgotten == "elsewhere":
        shutil.rmtree(study.directory / ".snakemake")
        study.directory = study.directory.rename(study.directory.with_name("elsewhere"))
    change(study)
    assert snakemake(study.directory, *words) == 0
    assert verbs <= _verbs(study)
    assert walks.wrong(study) == []


def test_nothing_is_made_again_because_records_are_lost(study: Study) -> None:
    shutil.rmtree(study.directory / ".snakemake")
    assert snakemake(study.directory) == 0
    assert _verbs(study) == set()


def test_a_checkpoint_more_trains_measures_and_scores_itself_alone(
    study: Study, walks: Walks
) -> None:
    changed(models__small={"checkpoints": [0, 2, 8], "init": True})(study)
    assert snakemake(study.directory) == 0
    said = calls(study.directory)
    assert [call for call in said if call.startswith("update")] == ["update small 2"]
    for verb in ("measure", "score"):
        of = [re.search(r"small/(\w+)", call)[1] for call in said if call.startswith(f"{verb} ")]
        assert sorted(of) == ["init", "step2"]
    assert walks.wrong(study) == []
    # And a later one leaves `init` alone, which has no training.
    changed(models__small={"checkpoints": [0, 2, 4]})(study)
    assert snakemake(study.directory) == 0
    assert sum(call.startswith("measure ") for call in calls(study.directory)) == 1


def test_a_variant_taken_out_measures_nothing(study: Study, walks: Walks) -> None:
    changed(reduce={"variants": ["frobenius", "swapped"]})(study)
    assert snakemake(study.directory) == 0
    assert "measure" in _verbs(study)
    changed(reduce={"variants": ["frobenius"]})(study)
    assert snakemake(study.directory) == 0
    assert _verbs(study) == {"reduce", *JOINS}
    assert walks.wrong(study) == []


def test_random_walks_end_as_fresh_runs(tmp_path: Path) -> None:
    """As many as fit into BLOCKCOUPLING_WALKS seconds (default: 60)."""
    seconds = os.environ.get("BLOCKCOUPLING_WALKS", "60")
    run = subprocess.run(
        [sys.executable, walk.__file__, "--seconds", seconds, "--directory", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
