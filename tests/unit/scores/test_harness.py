"""Local benchmarks through lm-evaluation-harness, against log-likelihoods summed here."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lm_eval.tasks import TaskManager
from tiny_model import save_tiny_model

from blockcoupling.config.questions import TEMPLATES
from blockcoupling.errors import UserError
from blockcoupling.scores.harness import task_scores
from blockcoupling.sources.models import load_model, record_of

WORDS = ["ice", "fire", "a stone", "the sea", "wood", "tin", "silk", "a bird"]
QUESTIONS = [
    {
        "id": str(n),
        "question": f"Which is number {n}?",
        "choices": [WORDS[(n * k + k) % 8] + "!" * k for k in range(1, 4)],
        "answer": n % 3,
    }
    for n in range(12)
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    directory = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return load_model(record_of(str(directory)), device="cpu")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    return path


def log_likelihood(model, prompt: str, continuation: str) -> float:
    given, wanted = prompt.encode(), f" {continuation}".encode()
    ids = torch.tensor([[*given, *wanted]])
    logs = model(input_ids=ids).logits[0].double().log_softmax(-1)
    return sum(logs[len(given) + n - 1, byte].item() for n, byte in enumerate(wanted))


def test_accuracy_is_the_share_of_answers_that_are_likeliest(tiny, file: Path) -> None:
    model, tokenizer = tiny
    task = {"path": str(file), "template": "arc_challenge", "few_shot": 0}
    rows = {row["metric"]: row for row in task_scores(model, tokenizer, {"mine": task})}
    template = TEMPLATES["arc_challenge"]
    right = {"acc": 0, "acc_norm": 0}
    for question in QUESTIONS:
        logs = [log_likelihood(model, template.prompt(question), c) for c in question["choices"]]
        by_length = [log / len(c) for log, c in zip(logs, question["choices"], strict=True)]
        right["acc"] += logs.index(max(logs)) == question["answer"]
        right["acc_norm"] += by_length.index(max(by_length)) == question["answer"]
    assert right["acc"] != right["acc_norm"]  # or the test could not tell them apart
    for metric, count in right.items():
        row = rows[metric]
        share = count / 12
        assert row["value"] == pytest.approx(share)
        # The error of a mean of n zeros and ones.
        assert row["standard_error"] == pytest.approx((share * (1 - share) / 11) ** 0.5)
        assert (row["n"], row["higher_is_better"], row["score"]) == (12, True, "mine")


def test_the_source_tells_how_it_was_asked(tiny, file: Path) -> None:
    model, tokenizer = tiny
    long = [q | {"question": "Which? " * 9} for q in QUESTIONS]
    file.write_text("".join(json.dumps(q) + "\n" for q in long))
    task = {"path": str(file), "template": "mmlu", "few_shot": 0, "limit": 5, "seed": 3}
    rows = task_scores(model, tokenizer, {"mine": task})
    assert {row["n"] for row in rows} == {5}
    source = rows[0]["source"]
    for part in (
        "lm_eval 0.",
        "questions.jsonl, 5 questions sampled with seed 3, 5 cut to the model's context",
        "task version 1.0",
        "0-shot",
    ):
        assert part in source


def test_shown_examples_are_told_with_their_seed(tiny, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    short = [
        {**q, "question": "?", "choices": ["a", "b"], "answer": n % 2}
        for n, q in enumerate(QUESTIONS)
    ]
    file.write_text("".join(json.dumps(q) + "\n" for q in short))
    task = {"path": str(file), "template": "arc_challenge", "few_shot": 2, "seed": 5}
    rows = task_scores(*tiny, {"mine": task})
    assert rows[0]["source"].endswith("2-shot (examples drawn with seed 5)")


def test_a_group_of_the_harness_counts_the_questions_of_its_parts(
    tiny, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts in files here stand for those of mmlu, which are on the hub."""
    parts = tmp_path / "tasks"
    parts.mkdir()
    for name in ("one", "other"):
        described = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(file)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        (parts / f"{name}.yaml").write_text(yaml.safe_dump(described))
    group = {
        "group": "both",
        "task": ["one", "other"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
        "metadata": {"version": 7},
    }
    (parts / "both.yaml").write_text(yaml.safe_dump(group))
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager",
        lambda **_: TaskManager(include_path=str(parts), include_defaults=False),
    )
    task = {"task": "both", "path": None, "few_shot": 0, "limit": 4}
    (row,) = task_scores(*tiny, {"mine": task})
    assert (row["metric"], row["n"], row["higher_is_better"]) == ("acc", 8, True)
    assert "task both, its first 4 questions (of each part), task version 7" in row["source"]


def of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch, *described: dict) -> None:
    """Give the harness these tasks, and no others."""
    place.mkdir()
    for each in described:
        name = each.get("group") or each["task"]
        (place / f"{name}.yaml").write_text(yaml.safe_dump(each))
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager",
        lambda **_: TaskManager(include_path=str(place), include_defaults=False),
    )


def generating(name: str, file: Path, filters: dict[str, str]) -> dict:
    """A task whose answers are generated, and replaced by what each filter says."""

    def always(answer: str) -> list[dict]:
        never = {"function": "regex", "regex_pattern": "$never", "fallback": answer}
        return [never, {"function": "take_first"}]

    return {
        "task": name,
        "tag": "some_tag",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 2, "do_sample": False},
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "filter_list": [{"name": key, "filter": always(a)} for key, a in filters.items()],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


@pytest.mark.parametrize(
    "filters",
    [{"strict-match": "0"}, {"strict-match": "no number", "flexible-extract": "1"}, {"none": "2"}],
)
def test_every_filter_gives_a_metric(
    tiny, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filters: dict[str, str]
) -> None:
    of_its_own(tmp_path / "tasks", monkeypatch, generating("sums", file, filters))
    task = {"task": "sums", "path": None, "few_shot": 0, "limit": 6}
    rows = {row["metric"]: row for row in task_scores(*tiny, {"mine": task})}
    assert len(rows) == len(filters)
    for name, answer in filters.items():
        row = rows["exact_match" if name == "none" else f"exact_match,{name}"]
        share = np.mean([str(question["answer"]) == answer for question in QUESTIONS[:6]])
        assert row["value"] == pytest.approx(share)
        assert row["standard_error"] == pytest.approx((share * (1 - share) / 5) ** 0.5)
        assert (row["n"], row["higher_is_better"]) == (6, True)


@pytest.mark.parametrize(("name", "kind"), [("some_tag", "a tag"), ("bare", "a group")])
def test_what_has_no_score_of_its_own_is_refused_before_anything_is_evaluated(
    tiny, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    bare = {"group": "bare", "task": ["one", "other"]}
    tasks = (generating(task, file, {"strict-match": "0"}) for task in ("one", "other"))
    of_its_own(tmp_path / "tasks", monkeypatch, *tasks, bare)
    monkeypatch.setattr("lm_eval.simple_evaluate", lambda **_: pytest.fail("it was evaluated"))
    wanted = {"path": None, "few_shot": 0, "limit": 3}
    asked = {"first": {"task": "one", **wanted}, "mine": {"task": name, **wanted}}
    sentence = rf"score\.harness\.mine: {name} is {kind} .*: name its tasks, .*one, other"
    with pytest.raises(UserError, match=sentence):
        task_scores(*tiny, asked)


def test_questions_that_cannot_be_scored(tiny, file: Path) -> None:
    model, tokenizer = tiny
    task = {"path": str(file), "template": "gsm8k", "few_shot": 0}
    with pytest.raises(UserError, match="no choices to score"):
        task_scores(model, tokenizer, {"mine": task})
    file.write_text(json.dumps(QUESTIONS[0] | {"choices": ["x" * 64, "b"]}))
    task = {"path": str(file), "template": "arc_challenge", "few_shot": 0}
    with pytest.raises(UserError, match=r"an answer of 65 tokens does not fit .* context, 64"):
        task_scores(model, tokenizer, {"mine": task})


def test_a_task_that_the_harness_does_not_know(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_its_own(include_path: str, include_defaults: bool) -> TaskManager:
        assert include_defaults
        return TaskManager(include_path=include_path, include_defaults=False)  # seconds faster

    monkeypatch.setattr("lm_eval.tasks.TaskManager", without_its_own)
    model, tokenizer = tiny
    task = {"task": "arc_chalenge", "path": None, "few_shot": 0}
    with pytest.raises(UserError, match="has no task arc_chalenge"):
        task_scores(model, tokenizer, {"mine": task})
