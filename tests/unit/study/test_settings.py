"""What decides the results of each job is kept among the results, and compared."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blockcoupling import lab
from blockcoupling.config.images import FolderImages
from blockcoupling.config.steps import steps
from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config
from blockcoupling.study.settings import TOGETHER, Settings

lab.join()

REPOSITORY = Path(__file__).parents[3]
TRAIN = {"hidden_size": 16, "blocks": 2, "heads": 2, "steps": 4}
OF = {"model": "a", "checkpoint": "step4", "dataset": "heldout"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(**sections: Any) -> Any:
    models = {name: {"train": TRAIN, "checkpoints": [4]} for name in ("a", "b")}
    datasets = {"heldout": {"name": "heldout", "prompts": 2}}
    return load_config({"study": "s", "models": models, "datasets": datasets, **sections})


def written() -> dict[str, int]:
    place = Path("results/s/settings")
    return {str(file.relative_to(place)): file.stat().st_mtime_ns for file in place.rglob("*.json")}


def test_every_job_has_its_file_and_the_rest_is_left_alone():
    Settings(study(), main=True).write()
    before = written()
    jobs = {
        f"{row.name}/{','.join(job.values()) or row.name}"
        for row in steps()
        for job in row.wildcards(study())
    }
    assert sorted(name.rsplit(".", 2)[0] for name in before) == sorted(jobs)
    Settings(study(), main=True).write()
    assert written() == before
    Settings(study(extract={"tolerance": 1e-3}), main=True).write()
    after = written()
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"extract"}
    assert {name: time for name, time in after.items() if before.get(name) == time} == {
        name: time for name, time in before.items() if not name.startswith("extract/")
    }
    # Back again: newer than whatever was made meanwhile.
    Settings(study(), main=True).write()
    assert written().keys() == before.keys()
    newest = max(after.values())
    assert all(time > newest for name, time in written().items() if name.startswith("extract/"))


def test_every_rule_of_a_step_has_its_file_as_an_input():
    rules = "".join(file.read_text() for file in (REPOSITORY / "workflow/rules").glob("*.smk"))
    read = set(re.findall(r"settings=settled\(\"(\w+)\"\)", rules))
    assert read == {row.name for row in steps()}


def test_no_device_and_no_engine_is_among_them():
    Settings(study(), main=True).write()
    before = written()
    Settings(study(extract={"device": "cpu"}, reduce={"cluster": "threads"}), main=True).write()
    assert written() == before


def test_a_job_that_sees_other_settings_than_it_was_submitted_with_refuses():
    main = Settings(study(), main=True)
    main.write()
    job = Settings(study(), main=False)
    assert job.file("extract", OF) == main.file("extract", OF)
    before = written()
    edited = Settings(study(extract={"tolerance": 1e-3}), main=False)
    with pytest.raises(
        UserError, match="the configuration has changed since the run began"
    ) as said:
        edited.file("extract", OF)
    assert "\n" not in str(said.value)
    assert edited.file("score", OF) == main.file("score", OF)
    assert written() == before


def test_a_dry_run_of_other_settings_leaves_those_of_a_run_that_goes_on():
    Settings(study(), main=True).write()
    before = written()
    Path(".snakemake/locks").mkdir(parents=True)
    Path(".snakemake/locks/0.input.lock").touch()
    looking = Settings(study(extract={"tolerance": 1e-3}), main=True)
    looking.write()
    assert written() == before
    assert Path(looking.file("extract", OF)[0]).is_file()


def test_a_file_says_what_decides(here: Path):
    settings = Settings(study(), main=True)
    settings.write()
    (file,) = settings.file("extract", OF)
    assert json.loads(Path(file).read_text()) == settings.of("extract", OF)
    (prompts,) = settings.file("prompts", OF)
    assert '"prompts": 2' in json.loads(Path(prompts).read_text())["options"]


def test_jobs_of_a_chunk_have_one_file_that_changes_with_each_of_them():
    member = {"train": TRAIN, "checkpoints": [4], "population": "sizes", "together": 2}
    sections: dict[str, Any] = {"models": dict.fromkeys("abcd", member)}
    settings = Settings(study(**sections), main=True)
    settings.write()
    assert {"sizes_0", "sizes_1"} == {
        name.split("/")[1].split(".")[0] for name in written() if name.startswith(TOGETHER)
    }
    before = written()
    Settings(study(**sections, extract={"tolerance": 1e-3}), main=True).write()
    assert len([n for n in written().keys() - before.keys() if n.startswith(TOGETHER)]) == 2


def test_another_content_of_a_users_file_starts_its_chunk_again(here: Path):
    member = {"train": TRAIN, "checkpoints": [4], "population": "sizes", "together": 2}
    task = {"path": "questions.jsonl", "template": "arc_challenge"}
    sections: dict[str, Any] = {"models": dict.fromkeys("ab", member)}
    sections["score"] = {"harness": {"mine": task}}
    question = {"question": "1?", "choices": ["a", "b"], "answer": 0}
    (here / "questions.jsonl").write_text(json.dumps(question) + "\n")
    Settings(study(**sections), main=True).write()
    before = written()
    (here / "questions.jsonl").write_text(json.dumps(question | {"answer": 1}) + "\n")
    os.utime(here / "questions.jsonl", (10**9, 10**9))
    Settings(study(**sections), main=True).write()
    assert [n.split("/")[0] for n in written().keys() - before.keys()] == [TOGETHER]


def test_a_step_that_gives_other_results_in_a_new_version_is_run_again(monkeypatch):
    Settings(study(), main=True).write()
    before = written()
    rows = [replace(row, version=9) if row.name == "correlate" else row for row in steps()]
    monkeypatch.setattr("blockcoupling.config.steps._STEPS", rows)
    Settings(study(), main=True).write()
    assert {name.split("/")[0] for name in written().keys() - before.keys()} == {"correlate"}


def _pictures(place: Path, content: bytes, old: bool = False) -> None:
    folder = place / "test" / "cat"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(content)
    if old:
        os.utime(folder / "a.png", (10**9, 10**9))


def test_images_are_known_by_their_content(here: Path):
    from blockcoupling.study.inputs import content_of_prompts

    _pictures(here / "new", b"1")
    _pictures(here / "older", b"2", old=True)
    _pictures(here / "same", b"1", old=True)
    link = here / "pics"

    section = SimpleNamespace(images=FolderImages(path=link))
    fake: Any = SimpleNamespace(datasets={"pictures": section})

    def digest(target: str) -> Any:
        link.unlink(missing_ok=True)
        link.symlink_to(here / target)
        return content_of_prompts(fake, "pictures")

    first = digest("new")
    assert first is not None
    assert digest("older") != first
    assert digest("same") == first
    shutil.rmtree(here / "same")
    _pictures(here / "same", b"3", old=True)
    assert digest("same") != first
