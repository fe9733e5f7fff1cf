"""`blockcoupling status` says what `snakemake --dry-run` would do, and touches nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from running import REPOSITORY, Workplace, kill

from blockcoupling.study.journal import JOURNAL

pytestmark = pytest.mark.workflow

MODEL = {"train": {"hidden_size": 16, "blocks": 2, "heads": 2, "steps": 2}, "checkpoints": [2]}
PLACE = Path("small", "step2", "mine")
TABLE = str(Path("results", "seconds", "tables", PLACE, "coupling.parquet"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A study of one model, run as far as its tables; tests undo their edits."""
    place = Workplace(tmp_path_factory.mktemp("measured"))
    prompts = [json.dumps({"text": f"The square of {n} is {n * n}."}) for n in range(4)]
    (place.directory / "mine.jsonl").write_text("\n".join(prompts))
    configured(place)
    run = place.snakemake(TABLE)
    assert run.status == 0, run.said
    return place


def configured(place: Workplace, **changes: Any) -> None:
    datasets = {"mine": {"path": "mine.jsonl"}}
    extract = {"k": 4, "batch": 2}
    place.configure(
        **{"models": {"small": MODEL}, "datasets": datasets, "extract": extract} | changes
    )


def status(place: Workplace) -> dict[str, Any]:
    snakefile = str(REPOSITORY / "Snakefile")
    command = [sys.executable, "-m", "blockcoupling", "status", "--json", "--config", "study.yaml"]
    said = subprocess.run(
        [*command, "--snakefile", snakefile],
        cwd=place.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def pending(place: Workplace) -> tuple[Counter[str], dict[str, Any]]:
    """Jobs that are not done, by rule; compared with what Snakemake says it would run."""
    document = status(place)
    left = Counter({each["step"]: each["jobs"] - each["done"] for each in document["steps"]})
    dry = place.snakemake("--dry-run")
    assert dry.status == 0, dry.said
    assert +left == Counter({rule: n for rule, n in dry.jobs.items() if rule != "all"})
    return +left, document


def everything(directory: Path) -> dict[str, int]:
    """When each file was written; without the cache of times that every dry run leaves."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path): path.lstat().st_mtime_ns for path in files if path.parent.name != "iocache"}


def test_after_a_run_what_was_not_asked_for_waits_and_nothing_was_touched(measured: Workplace):
    before = everything(measured.directory)
    assert str(measured.directory / JOURNAL) in before
    document = status(measured)
    assert everything(measured.directory) == before
    assert (document["failed"], document["stale"], document["running"]) == (0, 0, 0)
    assert document["interrupted"] is False
    done = {each["step"] for each in document["steps"] if each["done"] == each["jobs"]}
    assert {"train", "prompts", "extract", "reduce"} <= done
    left, _ = pending(measured)
    assert {"score", "correlate", "figures", "report", "catalog"} <= set(left)
    assert "reduce" not in left


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"reduce": {"k": [2, 4]}}, {"reduce"}),
        ({"extract": {"k": 8, "batch": 2}}, {"extract", "reduce"}),
    ],
)
def test_stale_is_what_an_edit_would_have_run_again(
    measured: Workplace, change: dict[str, Any], stale: set[str]
):
    configured(measured, **change)
    try:
        left, document = pending(measured)
    finally:
        configured(measured)
    assert {each["step"] for each in document["stale_jobs"]} == stale
    assert stale <= set(left)


def test_prompts_that_were_edited_and_tables_that_were_removed(measured: Workplace):
    table = measured.results / "tables" / PLACE / "coupling.parquet"
    kept, prompts = table.read_bytes(), (measured.directory / "mine.jsonl").read_text()
    times = table.stat().st_atime_ns, table.stat().st_mtime_ns
    table.unlink()
    try:
        _, document = pending(measured)
        waiting = [each["step"] for each in document["steps"] if each["waiting"]]
        assert "reduce" in waiting
        assert "reduce" not in {each["step"] for each in document["stale_jobs"]}
        table.write_bytes(kept)
        os.utime(table, ns=times)
        (measured.directory / "mine.jsonl").write_text(prompts + '\n{"text": "One more."}')
        _, document = pending(measured)
        assert {"prompts", "extract", "reduce"} <= {each["step"] for each in document["stale_jobs"]}
    finally:
        (measured.directory / "mine.jsonl").write_text(prompts)


def test_while_it_runs_after_it_was_killed_and_after_it_failed(measured: Workplace):
    parts = measured.results / "parts" / PLACE
    configured(measured, extract={"k": 5, "batch": 2})
    started = measured.start(TABLE)
    try:
        journal = measured.directory / JOURNAL
        before = journal.read_text().count('"begun"')
        while started.poll() is None and journal.read_text().count('"begun"') == before:
            time.sleep(0.05)
        assert started.poll() is None
        os.killpg(started.pid, signal.SIGSTOP)  # so that it still runs when status has looked
        running = status(measured)
        assert running["snakemake"] == [started.pid]
        assert not running["interrupted"]
        jobs = running["running_jobs"]
        assert {"extract"} == {each["step"] for each in jobs}
        assert jobs[0]["prompts"] == 4
    finally:
        kill(started)
    _, killed = pending(measured)
    assert killed["interrupted"]
    assert (killed["running"], killed["failed"], killed["snakemake"]) == (0, 0, [])

    shutil.rmtree(parts)
    parts.write_text("in the way")
    assert measured.snakemake("--unlock").status == 0
    assert measured.snakemake(TABLE).status != 0
    failed = status(measured)["failed_jobs"]
    assert [each["step"] for each in failed] == ["extract"]
    assert "part of the path is a file" in failed[0]["reason"]
    assert "error: " in (measured.directory / failed[0]["log"]).read_text()


def test_a_study_with_ablation_and_weight_spectra_has_their_jobs_in_status(workplace: Workplace):
    changes = {"reduce": {"k": [4]}, "damage": {"passages": 2}, "weight_spectra": True}
    configured(workplace, datasets={"mine": {"name": "handwritten"}}, **changes)
    left, document = pending(workplace)
    assert (left["damage"], left["damage_statistics"], left["weight_spectra"]) == (1, 1, 1)
    steps = [each["step"] for each in document["steps"] if each["model"] == "small"]
    assert steps.index("extract") < steps.index("damage") < steps.index("reduce")
