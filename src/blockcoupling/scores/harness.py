"""Benchmarks through lm-evaluation-harness: its own tasks, or multiple choice over a local file."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from blockcoupling.config.questions import TEMPLATES
from blockcoupling.errors import UserError
from blockcoupling.sources.prompts import read_questions

LOCAL_TASK_VERSION = 1.0
"""Raised whenever what a local task asks, or how, changes."""


def harness_scores(
    model: Any, tokenizer: Any, tasks: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Evaluate tasks of lm-evaluation-harness.

    A task with a `path` is made here: every choice is scored as the continuation of the template's
    prompt, as multiple choice, over `limit` questions sampled with `seed` (all by default). Any
    other is the harness's own, from the hub, over its first `limit` questions.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        tasks: By the name of the score, `HarnessTask` as a mapping.

    Returns:
        Rows for `scores.evaluate`; the source tells the versions of harness and task, the number of
        examples shown before a question, and the file or task.

    Raises:
        UserError: the harness is not installed, does not know a task, or cannot load it; or the
            questions of a local file have no choices.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(
            "score.harness needs lm-evaluation-harness: pip install 'blockcoupling[evaluation]'"
        ) from error

    model_of_harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
    rows = []
    with TemporaryDirectory() as scratch:
        local = {
            name: _write_local_task(name, task, Path(scratch), model_of_harness)
            for name, task in tasks.items()
            if task.get("path")
        }
        manager = TaskManager(include_path=scratch, include_defaults=len(local) < len(tasks))
        for score, task in tasks.items():
            name = local[score].name if score in local else task.get("task") or score
            if name not in manager.all_tasks:
                raise UserError(f"score.harness.{score}: lm-evaluation-harness has no task {name}")
            try:
                found = simple_evaluate(
                    model=model_of_harness,
                    tasks=[name],
                    num_fewshot=task["few_shot"],
                    limit=None if score in local else task.get("limit"),
                    task_manager=manager,
                    log_samples=False,
                    fewshot_random_seed=task.get("seed") or 0,
                )
            except (OSError, ValueError) as error:
                raise UserError(f"score.harness.{score} cannot be evaluated: {error}") from error
            asked = local[score].asked if score in local else _asked_of_hub(name, task)
            shown = f"{task['few_shot']}-shot"
            if task["few_shot"]:
                shown += f" (examples drawn with seed {task.get('seed') or 0})"
            source = (
                f"lm_eval {version('lm_eval')}, {asked}, task version "
                f"{found['versions'].get(name)}, {shown}"
            )
            rows += [{"score": score, "source": source, **row} for row in _rows(name, found)]
    return rows


def _asked_of_hub(name: str, task: Mapping[str, Any]) -> str:
    limit = task.get("limit")
    return f"task {name}" + (f", its first {limit} questions (of each part)" if limit else "")


def _rows(name: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the harness found for a task, a row a metric."""
    results = found["results"][name]
    # Of a group (mmlu, say) the questions of all its tasks.
    count = sum(each["effective"] for each in found["n-samples"].values())
    rows = []
    for key, value in results.items():
        metric, _, kind = key.partition(",")
        if kind != "none" or metric.endswith("_stderr"):
            continue
        error = results.get(f"{metric}_stderr,none")
        rows.append(
            {
                "metric": metric,
                "value": value,
                "standard_error": error if isinstance(error, float) else float("nan"),
                "n": count,
                "higher_is_better": bool(found["higher_is_better"][name].get(metric, True)),
            }
        )
    return rows


@dataclass(frozen=True)
class _LocalTask:
    """A task's name in the harness, and what was asked, in words."""

    name: str
    asked: str


def _write_local_task(
    score: str, task: Mapping[str, Any], scratch: Path, harness_model: Any
) -> _LocalTask:
    """Write the questions in one form for all templates, and the task's description."""
    template = TEMPLATES[task["template"]]
    if template.continuations is None:
        raise UserError(
            f"score.harness.{score}: questions of the template {task['template']} have no choices "
            "to score; use the harness's own task"
        )
    questions = read_questions(task["path"], task["template"])
    asked = Path(task["path"]).name
    limit, seed = task.get("limit"), task.get("seed") or 0
    if limit is not None and limit < len(questions):
        chosen = random.Random(seed).sample(range(len(questions)), limit)
        questions = [questions[n] for n in sorted(chosen)]
        asked += f", {limit} questions sampled with seed {seed}"
    rows = [
        {
            "prompt": template.prompt(question),
            "choices": template.continuations(question),
            "answer": question["answer"],
        }
        for question in questions
    ]
    if cut := _count_cut(score, rows, harness_model):
        asked += f", {cut} cut to the model's context"
    name = f"local_{score}"
    data = scratch / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    description = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", "acc_norm")
        ],
        "metadata": {"version": LOCAL_TASK_VERSION},
    }
    (scratch / f"{name}.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    return _LocalTask(name, asked)


def _count_cut(score: str, rows: list[dict[str, Any]], harness_model: Any) -> int:
    """How many questions the harness will cut from the left to fit the model's context."""
    context = harness_model.max_length
    cut = 0
    for row in rows:
        longest = max(len(harness_model.tok_encode(f" {choice}")) for choice in row["choices"])
        if longest > context:
            raise UserError(
                f"score.harness.{score}: an answer of {longest} tokens does not fit the model's "
                f"context, {context}: {max(row['choices'], key=len)!r}"
            )
        # The last token is only predicted, never given.
        cut += len(harness_model.tok_encode(row["prompt"])) + longest > context + 1
    return cut
