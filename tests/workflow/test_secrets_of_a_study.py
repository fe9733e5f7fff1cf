"""Secrets that are about while a study runs are in nothing that it leaves."""

from pathlib import Path

import pytest
from gossiping_hub import PASSWORD, TOKEN, Gossip, gossiping_hub
from running import Workplace

pytestmark = pytest.mark.workflow


def left(directory: Path) -> dict[Path, bytes]:
    """Every file of a directory: results, logs, catalog, and what Snakemake keeps."""
    return {
        path.relative_to(directory): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def told_in(files: dict[Path, bytes]) -> list[Path]:
    return [
        path
        for path, content in files.items()
        if any(secret.encode() in content for secret in (TOKEN, PASSWORD))
    ]


def test_a_finished_study_holds_none(finished: Workplace) -> None:
    files = left(finished.directory)
    folders = {path.parts[0] for path in files}
    assert {".snakemake", "catalog", "results", "said.txt"} <= folders
    assert told_in(files) == []


def test_nor_does_one_whose_hub_tells_them(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub answers is in the log of the job that failed, and on the screen."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(workplace.directory / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    workplace.configure(models={"theirs": {"id": "some/model"}}, extract={"k": 4})
    with gossiping_hub() as address:
        monkeypatch.setenv("HF_ENDPOINT", f"http://{address}")
        run = workplace.snakemake("models")
    assert run.status != 0
    assert any(TOKEN in each for each in Gossip.asked)
    assert "not for Bearer (hidden)" in run.said
    log = workplace.results / "logs" / "weights" / "theirs" / "main.log"
    assert "not for Bearer (hidden)" in log.read_text()
    assert TOKEN not in run.said
    assert told_in(left(workplace.directory)) == []
