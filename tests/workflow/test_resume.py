"""A study that is killed goes on where it was, and ends with the numbers of one never killed."""

import json
import shutil
import time
from pathlib import Path

import pytest
from running import Workplace, kill

pytestmark = pytest.mark.workflow

PLACE = Path("small", "step2", "mine")
TABLE = str(Path("results", "seconds", "tables", PLACE, "coupling.parquet"))


@pytest.fixture
def ready(workplace: Workplace) -> Workplace:
    """A model and 24 prompts: long enough to be killed in the middle."""
    prompts = [json.dumps({"text": f"The square of {n} is {n * n}."}) for n in range(24)]
    (workplace.directory / "mine.jsonl").write_text("\n".join(prompts))
    shape = {"hidden_size": 64, "blocks": 4, "heads": 2, "steps": 2}
    workplace.configure(
        models={"small": {"train": shape, "checkpoints": [2]}},
        datasets={"mine": {"path": "mine.jsonl"}},
        extract={"k": 32, "batch": 4},
    )
    assert workplace.snakemake("models", "prompt_sets").status == 0
    return workplace


def finished_prompts(parts: Path) -> set[str]:
    """The parts that have their final name."""
    return {path.name for path in parts.glob("[!.]*.part")}


def test_a_killed_study_goes_on_where_it_was(ready: Workplace):
    parts = ready.results / "parts" / PLACE
    log = ready.results / "logs" / "extract" / f"{PLACE}.log"
    started = ready.start(TABLE)
    while not finished_prompts(parts) and started.poll() is None:
        time.sleep(0.01)
    kill(started)
    done = finished_prompts(parts)
    assert 0 < len(done) < 24
    assert not list((ready.results / "svd" / PLACE).rglob("zarr.json"))

    locked = ready.snakemake(TABLE)
    assert locked.status != 0
    assert "--unlock" in locked.said
    assert ready.snakemake("--unlock").status == 0
    run = ready.snakemake(TABLE)
    assert run.status == 0, run.said
    assert run.jobs == {"extract": 1, "reduce": 1}
    assert "24 prompts are measured already" in log.read_text()  # none was measured again
    assert int(log.read_text().split(" of 24 prompts")[0].split()[-1]) >= len(done)
    assert not finished_prompts(parts)  # they are in the store
    resumed = (ready.directory / TABLE).read_bytes()

    # Snakemake deletes the store's zarr.json before the job starts; the prompts are found.
    assert ready.snakemake(TABLE, "--forcerun", "extract").status == 0
    assert "24 of 24 prompts are measured already" in log.read_text()
    assert (ready.directory / TABLE).read_bytes() == resumed

    shutil.rmtree(parts)
    assert ready.snakemake(TABLE, "--forcerun", "extract").status == 0
    assert (ready.directory / TABLE).read_bytes() == resumed
