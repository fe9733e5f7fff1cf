"""Benchmarks through lm-evaluation-harness: its own tasks, or multiple choice over a local file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from blockcoupling.config.questions import TEMPLATES
from blockcoupling.errors import UserError, explained_imports
from blockcoupling.scores.table import Rows, metric_row
from blockcoupling.sources.prompts import read_questions
from blockcoupling.sources.sampling import sample

if TYPE_CHECKING:
    from blockcoupling.scores.scores import Checkpoint

LOCAL_TASK_VERSION = 1.0
"""Increase it whenever the questions of a local task, or their form, change."""


def harness_scores(
    checkpoint: Checkpoint, tasks: Mapping[str, Mapping[str, Any]], before: Rows
) -> Rows:
    """Scores of a language model on benchmarks; see `scores.table` and `task_scores`."""
    return task_scores(*checkpoint.language_model, tasks)


def task_scores(model: Any, tokenizer: Any, tasks: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Evaluate tasks of lm-evaluation-harness.

    A task with a `path` is created here. Every choice is scored as the continuation of the
    template's prompt, as multiple choice, over `limit` questions sampled with `seed` (default:
    all). Other tasks are the harness's own, from the hub, over their first `limit` questions.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        tasks: `HarnessTask` as a mapping, by the name of the score.

    Returns:
        Rows with score, the columns of `metric_row`, and source: the versions of harness and task,
        the number of few-shot examples, and the file or task.

    Raises:
        UserError: The harness is not installed, does not know a task, or cannot load it; or the
            questions of a local file have no choices.
    """
    with explained_imports():
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

    model_of_harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
    rows = []
    with TemporaryDirectory() as scratch:
        local = {
            name: _write_local_task(name, task, Path(scratch), model_of_harness)
            for name, task in tasks.items()
            if task.get("path")
        }
        manager = TaskManager(include_path=scratch, include_defaults=len(local) < len(tasks))
        names = {
            score: local[score].name if score in local else task.get("task") or score
            for score, task in tasks.items()
        }
        for score, name in names.items():  # all, before the first is evaluated
            _demand_scored(manager, score, name)
        for score, task in tasks.items():
            name = names[score]
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


def _demand_scored(manager: Any, score: str, name: str) -> None:
    """Refuse a name under which the harness reports no score."""
    if name not in manager.all_tasks:
        raise UserError(f"score.harness.{score}: lm-evaluation-harness has no task {name}")
    if name in manager.all_tags:
        kind, members = "tag", sorted(manager.task_index[name].tags)
    elif name in manager.all_groups:
        group = manager.load(name)["groups"][name]
        if group.has_aggregation:
            return
        kind, members = "group", group.child_names
    else:
        return
    shown = ", ".join(members[:8]) + (", …" if len(members) > 8 else "")
    raise UserError(
        f"score.harness.{score}: {name} is a {kind} of lm-evaluation-harness, which has no score "
        f"of its own: name its tasks, each as a score ({shown})"
    )


def _asked_of_hub(name: str, task: Mapping[str, Any]) -> str:
    limit = task.get("limit")
    return f"task {name}" + (f", its first {limit} questions (of each part)" if limit else "")


def _rows(name: str, found: Mapping[str, Any]) -> Rows:
    """The harness's results of a task, a row per metric: `metric`, or `metric,filter`."""
    results = found["results"][name]
    # A group, such as mmlu, counts the questions of all its tasks.
    count = sum(each["effective"] for each in found["n-samples"].values())
    rows = []
    for key, value in results.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        error = results.get(f"{metric}_stderr,{kind}")
        error = error if isinstance(error, float) else float("nan")
        higher_is_better = bool(found["higher_is_better"][name].get(metric, True))
        named = metric if kind == "none" else key
        rows.append(metric_row(named, value, error, count, higher_is_better))
    if not rows:
        raise UserError(f"lm-evaluation-harness gives no metrics of the task {name}")
    return rows


class _LocalTask(NamedTuple):
    """A task created here: its name in the harness, and a description of its questions."""

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
        questions = sample(questions, limit, seed)
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
    """Number of questions that the harness will truncate from the left to fit the context."""
    context = harness_model.max_length
    cut = 0
    for row in rows:
        longest = max(len(harness_model.tok_encode(f" {choice}")) for choice in row["choices"])
        if longest > context:
            raise UserError(
                f"score.harness.{score}: an answer of {longest} tokens does not fit the model's "
                f"context, {context}: {max(row['choices'], key=len)!r}"
            )
        # The last token is predicted, not read.
        cut += len(harness_model.tok_encode(row["prompt"])) + longest > context + 1
    return cut
