"""Scores that were evaluated before are not evaluated again, and are those of the same things."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blockcoupling import lab
from blockcoupling.scores import scores
from blockcoupling.scores.table import EVALUATIONS, Rows, metric_row

lab.join()
RECORD = {"name": "m", "checkpoint": "main", "identity": {"weights": "w"}}


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is evaluated; each value shows how many evaluations there have been."""
    calls: list[Any] = []

    def one(key: str) -> Any:
        def evaluation(checkpoint: Any, asked: Any, before: Rows) -> Rows:
            names = list(asked) if key == "harness" else [key]
            calls.extend(names)
            rows = [metric_row("acc", len(calls) + 1 / 3, float("nan"), 4) for _ in names]
            return [{"score": n, "source": key, **r} for n, r in zip(names, rows, strict=True)]

        return evaluation

    for key in EVALUATIONS:
        monkeypatch.setitem(EVALUATIONS, key, key)
    monkeypatch.setattr(scores, "resolve_name", one)
    return calls


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "questions.jsonl"
    file.write_text("1")
    task = {"path": str(file), "template": "mmlu", "few_shot": 0, "limit": None, "seed": 0}
    return {
        "heldout": True,
        "gap": {"text": 1.0},
        "harness": {"mine": {**task, "task": "mine"}, "arc": {**task, "path": None, "task": "arc"}},
    }


def scored(spec: dict[str, Any], kept: Path, **changes: Any) -> pd.DataFrame:
    return scores.evaluate({**RECORD, **changes}, spec, kept=kept)


def test_one_score_more_or_less_evaluates_that_one_only(evaluated, spec, tmp_path: Path):
    kept = tmp_path / "kept"
    first = scored(spec, kept)
    assert evaluated == ["heldout", "mine", "arc", "gap"]
    evaluated.clear()
    pd.testing.assert_frame_equal(scored(spec, kept), first)
    assert evaluated == []
    more = {**spec, "harness": {**spec["harness"], "more": {"task": "more", "path": None}}}
    both = scored(more, kept)
    assert evaluated == ["more"]
    others = both[both["score"] != "more"].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, first)
    less = {**spec, "harness": {"arc": spec["harness"]["arc"]}}
    assert list(scored(less, kept)["score"]) == ["heldout", "arc", "gap"]
    assert evaluated == ["more"]


def test_a_renamed_score_or_a_moved_file_is_not_evaluated_again(evaluated, spec, tmp_path: Path):
    first = scored(spec, tmp_path / "kept").set_index("score")["value"]
    evaluated.clear()
    moved = tmp_path / "elsewhere" / "questions.jsonl"
    moved.parent.mkdir()
    Path(spec["harness"]["mine"]["path"]).rename(moved)
    mine = {**spec["harness"]["mine"], "task": "yours", "path": str(moved)}
    harness = {"yours": mine, "ours": spec["harness"]["arc"]}
    now = scored({**spec, "harness": harness}, tmp_path / "kept").set_index("score")["value"]
    assert evaluated == []
    assert (now["yours"], now["ours"]) == (first["mine"], first["arc"])


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("questions", ["mine"]),
        ("limit", ["mine"]),
        ("weights", ["heldout", "mine", "arc", "gap"]),
        ("versions", ["heldout", "mine", "arc", "gap"]),
        ("a flipped bit", ["heldout", "mine", "arc", "gap"]),
    ],
)
def test_what_decides_a_score_evaluates_it_again(
    evaluated, spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, again: list[str]
):
    kept, record = tmp_path / "kept", {}
    scored(spec, kept)
    evaluated.clear()
    if change == "questions":
        Path(spec["harness"]["mine"]["path"]).write_text("2")
    elif change == "limit":
        spec = json.loads(json.dumps(spec).replace('"limit": null', '"limit": 3', 1))
    elif change == "weights":
        record = {"identity": {"weights": "v"}}
    elif change == "versions":
        monkeypatch.setattr("blockcoupling.scores.kept.version", lambda _: "2")
    else:
        for file in kept.iterdir():
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    scored(spec, kept, **record)
    assert evaluated == again


def test_without_a_directory_nothing_is_kept(evaluated, spec):
    for _ in range(2):
        scores.evaluate(RECORD, spec)
    assert evaluated == 2 * ["heldout", "mine", "arc", "gap"]
