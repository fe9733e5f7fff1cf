"""A study of the hub turned into one of files that lie here, for machines without the hub.

    python tests/real/local_study.py STUDY.yaml MODEL_DIRECTORY BENCHMARK_DIRECTORY > local.yaml

Hub models get `path:` in place of `id:` (all the same directory), hub datasets and tasks of the
harness the JSONL file of their name.
"""

import sys
from pathlib import Path
from typing import Any

import yaml


def localized(study: dict[str, Any], model: Path, benchmarks: Path) -> dict[str, Any]:
    """The study with local models, prompts and questions; everything else as it is."""
    models = {
        name: _without(section, "id", "revision") | {"path": str(model)}
        if "id" in section
        else section
        for name, section in study["models"].items()
    }
    datasets = {
        name: _local_file(section, benchmarks) if "id" in section else section
        for name, section in study["datasets"].items()
    }
    score = dict(study["score"])
    score["harness"] = {
        # A limit counts for each subject on the hub, for all questions in a file.
        name: {**task, **_questions(name, benchmarks), "limit": max(task["limit"], 50)}
        for name, task in score["harness"].items()
    }
    return {**study, "models": models, "datasets": datasets, "score": score}


def _local_file(section: dict[str, Any], benchmarks: Path) -> dict[str, Any]:
    kept = {key: section[key] for key in ("prompts", "seed", "max_bytes") if key in section}
    return kept | _questions(section["template"], benchmarks)


def _questions(template: str, benchmarks: Path) -> dict[str, str]:
    return {"path": str(benchmarks / f"{template}.jsonl"), "template": template}


def _without(section: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}


if __name__ == "__main__":
    source, model_directory, benchmark_directory = map(Path, sys.argv[1:])
    local = localized(yaml.safe_load(source.read_text()), model_directory, benchmark_directory)
    print(yaml.safe_dump(local, sort_keys=False), end="")
