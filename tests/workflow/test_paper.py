"""The study of the whole paper: its graph of jobs is complete, and is built without a network."""

import shutil
from pathlib import Path

import pytest
from running import REPOSITORY, Workplace

from blockcoupling.study.check import load_config

pytestmark = pytest.mark.workflow


def test_every_job_of_the_paper_is_planned(tmp_path: Path, monkeypatch):
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    # A proxy that does not exist: any request to the hub fails.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    paper = "config/studies/paper.yaml"
    run = Workplace(tmp_path).snakemake("--dry-run", "--quiet", "rules", study=paper)
    assert run.status == 0, run.said
    study = load_config(paper)
    measured = len(list(study.jobs()))
    checkpoints = sum(len(study.checkpoints(model)) for model in study.models)
    # One job measures a checkpoint on all six: it loads the model once.
    assert (run.jobs["extract_together_text"], run.jobs["reduce"]) == (checkpoints, measured)
    assert (run.jobs["model"], run.jobs["score"]) == (checkpoints, checkpoints)
    assert run.jobs["prompts"] == 6
    assert "train" not in run.jobs
