"""What jobs read and the workflow does not make is identified by its content."""

import os
from pathlib import Path
from pydoc_data import topics
from typing import Any

import pytest

from blockcoupling.catalog import write_entry
from blockcoupling.catalog.making import making
from blockcoupling.config.study import Study
from blockcoupling.sources.corpus import corpus
from blockcoupling.study import inputs

LANGUAGE = {"train": {"hidden_size": 32, "blocks": 2}}


def study(**more: Any) -> Study:
    return Study.model_validate(
        {
            "study": "s",
            "models": {"ours": LANGUAGE},
            "datasets": {"held": {"name": "heldout"}, "hand": {"name": "handwritten"}},
            **more,
        }
    )


def contents(of: Study) -> dict[str, Any]:
    return {
        "training": inputs.content_of_training(of, "ours"),
        "held": inputs.content_of_prompts(of, "held"),
        "score": inputs.content_of_scores(of, "ours"),
        "damage": inputs.content_of_damage(of),
        "hand": inputs.content_of_prompts(of, "hand"),
    }


def test_another_built_in_text_starts_all_that_read_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python's own text differs between its patch versions."""
    asked = study(damage={})
    try:
        before = contents(asked)
        assert before == contents(asked)
        monkeypatch.setattr(topics, "topics", {**topics.topics, "if": "Of another Python."})
        corpus.cache_clear()
        after = contents(asked)
    finally:
        monkeypatch.undo()
        corpus.cache_clear()
    assert {name for name in before if before[name] != after[name]} == {
        "training",
        "held",
        "score",
        "damage",
    }


def test_a_study_that_scores_no_text_does_not_depend_on_it() -> None:
    asked = study(score={"heldout": False, "gap": False})
    assert inputs.content_of_scores(asked, "ours") == {"questions": {}, "text": None}


def settled(place: Path) -> Any:
    """A file of settings, older than the prompts."""
    (place / "settings.json").write_text("{}")
    os.utime(place / "settings.json", (1, 1))
    return lambda wildcards: [str(place / "settings.json")]


def test_prompts_that_were_damaged_in_the_results_are_found(tmp_path: Path):
    study = Study(models={"m": {"id": "a/b"}}, datasets={"d": {"name": "handwritten"}})
    study = study.model_copy(update={"results": tmp_path})
    file, older = tmp_path / "prompts" / "d.jsonl", settled(tmp_path)
    file.parent.mkdir()
    file.write_text('{"id": "1", "text": "a"}\n')
    assert list(inputs.changed_prompts(study, older)) == []  # no entry yet: the job was killed
    write_entry(tmp_path / "entries/prompts/d/prompts.yml", "prompts", file, {"dataset": "d"})
    assert list(inputs.changed_prompts(study, older)) == []
    file.write_text('{"id": "1", "text": "c"}\n')
    assert list(inputs.changed_prompts(study, older)) == [file]


def test_prompts_of_a_file_that_was_edited_during_a_run_and_put_back_are_found(tmp_path: Path):
    texts, file = tmp_path / "mine.jsonl", tmp_path / "prompts" / "d.jsonl"
    older = settled(tmp_path)
    study = Study(models={"m": {"id": "a/b"}}, datasets={"d": {"path": str(texts)}})
    study = study.model_copy(update={"results": tmp_path})
    file.parent.mkdir()
    for each in (texts, file):
        each.write_text('{"text": "edited"}\n')
    made = making([], {"texts": texts})
    write_entry(tmp_path / "entries/prompts/d/prompts.yml", "prompts", file, {"dataset": "d"}, made)
    assert list(inputs.changed_prompts(study, older)) == []
    texts.write_text('{"text": "as before"}\n')
    assert list(inputs.changed_prompts(study, older)) == [file]
    # Settings that are newer make them again by themselves.
    (tmp_path / "settings.json").touch()
    assert list(inputs.changed_prompts(study, older)) == []
