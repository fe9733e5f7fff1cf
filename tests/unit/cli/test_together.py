"""Verbs that share a process: their logs, what they took, what a failure leaves out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from blockcoupling.cli import app
from blockcoupling.sources import models
from blockcoupling.sources.kept import keeping_models
from blockcoupling.sources.models import load_model, record_of


def job(place: Path, name: str, chain: str, *words: str) -> dict[str, Any]:
    return {
        **{"name": name, "chain": chain, "words": list(words)},
        **{"log": str(place / "logs" / f"{name}.log")},
        **{"benchmark": str(place / "benchmarks" / f"{name}.tsv")},
    }


def prompts(place: Path, name: str, chain: str, spec: dict[str, Any]) -> dict[str, Any]:
    out = str(place / f"{name}.jsonl")
    return job(place, name, chain, "prompts", "--spec", json.dumps(spec), "--out", out)


HERE = {"source": "builtin", "name": "handwritten"}


def test_jobs_have_their_own_logs_and_a_failure_leaves_out_its_chain(tmp_path: Path) -> None:
    gone = {"source": "jsonl", "path": str(tmp_path / "gone.jsonl"), "template": "text"}
    listed = [
        prompts(tmp_path, "one", "a", HERE),
        prompts(tmp_path, "two", "b", gone),
        prompts(tmp_path, "three", "b", HERE),
        job(tmp_path, "four", "c", "prompts", "--no-such-option"),
        prompts(tmp_path, "five", "d", HERE),
    ]
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps(listed))
    command = [sys.executable, "-m", "blockcoupling", "together", f"@{file}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    made = sorted(path.stem for path in tmp_path.glob("*.jsonl"))
    assert made == ["five", "one"]
    assert f"two failed; its log, {tmp_path / 'logs' / 'two.log'}, ends:" in ended.stderr
    assert "gone.jsonl" in (tmp_path / "logs" / "two.log").read_text()
    assert "gone.jsonl" in ended.stderr
    assert "no-such-option" in (tmp_path / "logs" / "four.log").read_text()
    assert not (tmp_path / "logs" / "three.log").exists()


def test_what_a_job_took_is_written_as_snakemake_does(tmp_path: Path) -> None:
    from snakemake.benchmark import BenchmarkRecord

    listed = json.dumps([prompts(tmp_path, "one", "a", HERE)])
    assert CliRunner().invoke(app, ["together", listed]).exit_code == 0
    (row,) = pd.read_csv(tmp_path / "benchmarks" / "one.tsv", sep="\t").to_dict("records")
    assert list(row) == BenchmarkRecord.get_header()
    assert 0 < row["cpu_time"] < 60
    assert 0 < row["s"] < 60
    if sys.platform == "linux":
        assert 10 < row["max_rss"] < 100_000


def test_a_list_that_is_none_is_refused() -> None:
    for wrong in ('{"name": 1}', "[1]", '[{"name": "x"}]'):
        ended = CliRunner().invoke(app, ["together", wrong])
        assert ended.exit_code == 2
        assert "must be a JSON list" in ended.output


def test_a_model_is_loaded_once_where_models_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    pretrained = models._pretrained
    monkeypatch.setattr(
        models, "_pretrained", lambda *of: loaded.append(of[1].name) or pretrained(*of)
    )
    first, second = (record_of(str(save_tiny_model(tmp_path / name))) for name in "ab")
    with keeping_models():
        model, _ = load_model(first, "cpu", "float32")
        again, _ = load_model({**first, "facts": {"x": 1}}, "cpu")  # a fact makes no other model
        assert again is model
        assert loaded == ["a"]
        load_model(first, "cpu", "float64")
        load_model(second, "cpu")
        load_model(first, "cpu")
        assert loaded == ["a", "a", "b", "a"]
    assert load_model(first, "cpu")[0] is not load_model(first, "cpu")[0]
