"""A study under Snakemake: killed and restarted, started twice, with damaged results."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from os import environ
from pathlib import Path

from running import Run, Workplace, kill

from blockcoupling.study.journal import JOURNAL
from faults.fault import Outcome, compare

PROMPTS = 12
RESULTS = ("results/seconds/svd", "results/seconds/tables", "results/seconds/scores")
CATALOG = "results/seconds/catalog/measurements.yml"
PLACE = Path("small", "step2", "mine")


def prepare(directory: Path) -> Workplace:
    """Write a study of one small model and its prompts; run nothing."""
    directory.mkdir(parents=True)
    place = Workplace(directory)
    texts = [json.dumps({"text": f"The square of {n} is {n * n}."}) for n in range(PROMPTS)]
    (directory / "mine.jsonl").write_text("\n".join(texts))
    shape = {"hidden_size": 16, "blocks": 2, "heads": 2, "steps": 2}
    place.configure(
        models={"small": {"train": shape, "checkpoints": [2]}},
        datasets={"mine": {"path": "mine.jsonl"}},
        extract={"k": 4, "batch": 2},
    )
    return place


def undisturbed(directory: Path) -> tuple[Workplace, float]:
    """Run the study without a fault; return it and the seconds that it took."""
    place = prepare(directory)
    begun = time.monotonic()
    _demand(run(place))
    return place, time.monotonic() - begun


def run(place: Workplace, *words: str) -> Run:
    """Run the study up to the catalog of measurements."""
    return place.snakemake("--cores", "2", "measurements", *words)


def _demand(ended: Run) -> None:
    if ended.status:
        raise AssertionError(ended.said)


def killed(directory: Path, times: int = 5, seed: int = 0) -> Iterator[Outcome]:
    """Kill Snakemake and all its jobs at random instants; restart it and let it finish."""
    reference, seconds = undisturbed(directory / "undisturbed")
    outcome = Outcome("Snakemake and its jobs killed (SIGKILL), then restarted")
    begun, chosen = time.monotonic(), random.Random(seed)
    place = prepare(directory / "killed")
    done = 0
    while done < times:
        started = place.start("--cores", "2", "measurements")
        # A share of the whole time, so that each kill finds something running.
        time.sleep(chosen.uniform(0.1, 0.6) * seconds)
        if started.poll() is not None:
            break
        kill(started)
        done += 1
        locked = run(place)
        if locked.status == 0:
            break  # it was killed before it began, and has finished now
        if "--unlock" not in locked.said:
            outcome.notes.append(locked.said)
        _demand(place.snakemake("--unlock"))
    ended = run(place)
    different, lost = compare(place.directory, reference.directory, *RESULTS)
    for _ in range(done):
        outcome.count([ended.said] if ended.status else different, lost)
    outcome.seen = "`snakemake --unlock`, then the same command: only missing results are computed"
    outcome.seconds = time.monotonic() - begun
    yield outcome

    begun = time.monotonic()
    yield _twice(directory, reference, times=2)


def _twice(directory: Path, reference: Workplace, times: int) -> Outcome:
    """Start a second Snakemake while the first runs."""
    outcome = Outcome("a second Snakemake started in the same directory")
    begun = time.monotonic()
    place = prepare(directory / "twice")
    first = place.start("--cores", "2", "measurements")
    while first.poll() is None and not (place.directory / JOURNAL).exists():
        time.sleep(0.05)  # the journal begins when the directory is locked
    refused = []
    for _ in range(times):
        second = run(place)
        refused.append(second.status != 0 and "locked" in second.said.lower())
    first.wait()
    different, lost = compare(place.directory, reference.directory, *RESULTS)
    if first.returncode:
        different.append("the first one failed")
    for each in refused:
        outcome.count(different if each else ["the second one was not refused"], lost)
    outcome.seen = "the second reports that the directory is locked; the first continues"
    outcome.seconds = time.monotonic() - begun
    return outcome


def _store(place: Path) -> Path:
    return place / RESULTS[0] / PLACE / "svd.zarr"


def _truncate(place: Path) -> Path:
    chunk = _largest(_store(place) / "A")
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    return chunk


def _flip(place: Path) -> Path:
    chunk = _largest(_store(place) / "S")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 3] ^= 4
    chunk.write_bytes(content)
    return chunk


def _remove(place: Path) -> Path:
    shard = _largest(_store(place) / "gram")
    shard.unlink()
    return shard


def _flip_table(place: Path) -> Path:
    table = place / RESULTS[1] / PLACE / "coupling.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 4
    table.write_bytes(content)
    return table


def _largest(array: Path) -> Path:
    files = (path for path in (array / "c").rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


DAMAGE: dict[str, Callable[[Path], Path]] = {
    "a truncated Zarr chunk": _truncate,
    "a flipped bit in a Zarr chunk": _flip,
    "a missing shard": _remove,
    "a flipped bit in a table": _flip_table,
}


def damaged(directory: Path) -> Iterator[Outcome]:
    """Damage results; let `verify` find them, remove them as it says, and recompute them."""
    reference, _ = undisturbed(directory / "undisturbed")
    for what, damage in DAMAGE.items():
        begun, outcome = time.monotonic(), Outcome(what)
        place = Workplace(directory / what.replace(" ", "-"))
        shutil.copytree(reference.directory, place.directory, symlinks=True)
        file = damage(place.directory)
        found = _blockcoupling(place.directory, "verify", CATALOG)
        problems = []
        if found.returncode != 3 or file.name not in found.stdout:
            problems.append(f"`verify` returned {found.returncode}: {found.stdout}{found.stderr}")
        problems += _read_all(place.directory, file)
        for command in _commands(found.stdout):
            subprocess.run(["sh", "-c", command], cwd=place.directory, check=True)
        ended = run(place)
        different, lost = compare(place.directory, reference.directory, *RESULTS)
        again = _blockcoupling(place.directory, "verify", CATALOG)
        if again.returncode:
            problems.append(again.stdout)
        outcome.count(problems + ([ended.said] if ended.status else different), lost)
        outcome.seen = "`blockcoupling verify` names it and prints the commands that recompute it"
        outcome.seconds = time.monotonic() - begun
        yield outcome


def _blockcoupling(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "blockcoupling", *words],
        cwd=place,
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
    )


def _commands(said: str) -> list[str]:
    """The commands that `verify` prints to remove damaged files."""
    return [line.strip() for line in said.splitlines() if line.strip().startswith("rm ")]


def _read_all(place: Path, file: Path) -> list[str]:
    """Read a damaged artifact through the catalog; return a problem unless an error names it."""
    artifact = next((each for each in file.parents if each.suffix == ".zarr"), file)
    code = (
        "import sys, blockcoupling as bc\n"
        f"catalog = bc.open_catalog({CATALOG!r})\n"
        f"name = catalog.at({str(artifact)!r})\n"
        "content = catalog[name].read()\n"
        "getattr(content, 'compute', lambda: None)()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False
    )
    named = shlex.quote(file.name) in ended.stderr or str(artifact) in ended.stderr
    return [] if ended.returncode and named else [f"no error: {ended.stderr[-500:]}"]
