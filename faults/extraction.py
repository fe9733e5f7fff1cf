"""An extraction that is killed, runs out of disk space, or gets corrupt weights.

Its processes are forked from one that has imported everything, so that each kill costs a second.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.fault import NotHere, Outcome, compare

PROMPTS, K, BATCH = 6, 4, 2
KILLS = 5
"""Kills of one extraction before it may finish."""
STORE = "svd.zarr"
UNFINISHED = f".tmp-{STORE}"


@dataclass(frozen=True)
class Extraction:
    """A model's record, prompts, and the directory for the results."""

    record: Path
    prompts: Path
    place: Path

    @property
    def parts(self) -> Path:
        return self.place / "parts"

    @property
    def out(self) -> Path:
        return self.place / "svd" / STORE

    @property
    def log(self) -> Path:
        """Its messages; next to the record, because its own directory may be on a full disk."""
        return self.record.parent / f"{self.place.parent.name}-{self.place.name}.log"

    def at(self, place: Path) -> Extraction:
        place.mkdir(parents=True, exist_ok=True)
        return Extraction(self.record, self.prompts, place)

    def start(self) -> int:
        """Start it; return the process id."""
        number = os.fork()
        if number:
            return number
        status = 1
        try:
            log = os.open(self.log, _LOG, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            status = _extract(self)
        finally:
            os._exit(status)

    def run(self) -> tuple[int, str]:
        """Run it to its end; return its exit status and its messages."""
        self.log.unlink(missing_ok=True)
        status = os.waitstatus_to_exitcode(os.waitpid(self.start(), 0)[1])
        return status, self.log.read_text()


_LOG = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def _extract(job: Extraction) -> int:
    """Run the verb in this process as the command line would; return its exit status."""
    from blockcoupling.cli.shared import run_words

    words = ["extract", "--model", str(job.record), "--prompts", str(job.prompts)]
    words += ["--parts", str(job.parts), "--out", str(job.out), "--k", str(K)]
    words += ["--batch", str(BATCH), "--device", "cpu"]
    status = run_words(words)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def prepare(directory: Path) -> Extraction:
    """Create a model of two blocks and prompts, and import everything an extraction needs."""
    import torch

    from blockcoupling.lab.training import train
    from blockcoupling.measurement import extract  # noqa: F401
    from blockcoupling.sources.models import model_record
    from blockcoupling.sources.records import write_record

    torch.set_num_threads(1)  # threads do not survive a fork
    spec = {"name": "m", "hidden_size": 16, "blocks": 2, "heads": 2, "context": 64}
    spec |= {"batch": 2, "steps": 1, "checkpoints": [1]}
    weights = train(spec, directory / "weights")[1]
    spec = {"name": "m", "checkpoint": "step1", "source": "local", "path": str(weights)}
    write_record(model_record(spec), directory / "m.json")
    texts = [{"id": str(n), "text": f"The square of {n} is {n * n}."} for n in range(PROMPTS)]
    prompts = directory / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(each) + "\n" for each in texts))
    return Extraction(directory / "m.json", prompts, directory / "undisturbed").at(
        directory / "undisturbed"
    )


def _undisturbed(job: Extraction) -> tuple[float, float]:
    """Run it without a fault; return the seconds that it and its merge take."""
    begun = time.monotonic()
    number = job.start()
    merge = _wait_for(job.out.with_name(UNFINISHED), number)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    ended = time.monotonic()
    if status:
        raise AssertionError(job.log.read_text())
    return ended - begun, ended - merge


def _wait_for(path: Path, number: int) -> float:
    """Wait until a path exists or a process ends; return the time."""
    while not path.exists():
        if os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.0005)
    return time.monotonic()


def _kill(number: int) -> bool:
    """Kill a process; return whether it was still running."""
    os.kill(number, signal.SIGKILL)
    return os.waitpid(number, 0)[1] == signal.SIGKILL


def killed(directory: Path, instants: int = 50, seed: int = 0) -> Iterator[Outcome]:
    """Kill an extraction at random instants, half of them within the merge of its store."""
    job = prepare(directory)
    whole, merge = _undisturbed(job)
    chosen = random.Random(seed)
    measuring = Outcome("`extract` killed (SIGKILL) while measuring")
    merging = Outcome("`extract` killed (SIGKILL) while merging its store")
    for outcome, within in ((measuring, whole - merge), (merging, merge)):
        begun, lives = time.monotonic(), 0
        while outcome.provoked < instants // 2:
            lives += 1
            own = job.at(directory / f"{outcome.fault.split()[-1]}-{lives}")
            kills = 0
            for _ in range(min(KILLS, instants // 2 - outcome.provoked)):
                number = own.start()
                if outcome is merging:
                    _wait_for(own.out.with_name(UNFINISHED), number)
                time.sleep(chosen.uniform(0, within))
                if not _kill(number):
                    break  # it had ended
                kills += 1
            status, said = own.run()
            different, lost = compare(own.place, job.place, "svd", "parts")
            for _ in range(kills):
                outcome.count([said] if status else different, lost)
            shutil.rmtree(own.place)
        outcome.seen = "run the same command again; it resumes after the last finished prompt"
        outcome.seconds = time.monotonic() - begun
        yield outcome


@contextmanager
def _small_disk(place: Path, size: int) -> Iterator[None]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "blockcoupling-faults", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        raise NotHere("mounting a tmpfs needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def disk_full(directory: Path, times: int = 6) -> Iterator[Outcome]:
    """Fill the disk at various points from the first part to the merge; then make room."""
    job = prepare(directory)
    _undisturbed(job)
    needed = _blocks(job.place)
    outcome = Outcome("disk full while parts and the store are written (a small tmpfs)")
    begun = time.monotonic()
    for n in range(times):
        place = directory / f"disk-{n}"
        with _small_disk(place, int(needed * (n + 1) / (times + 1))):
            own = job.at(place / "run")
            status, said = own.run()
            if status == 0:
                continue
            explained = "No space left" in said or "is full" in said
            half = list(own.out.parent.glob("[!.]*")) if own.out.parent.exists() else []
            remount = ["mount", "-o", f"remount,size={4 * needed}", str(place)]
            subprocess.run(remount, check=True)
            status_after, said_after = own.run()
            different, lost = compare(own.place, job.place, "svd", "parts")
            if not explained or "Traceback" in said:
                different.append(f"said: {said}")
            different += [f"{path} was left incomplete" for path in half]
            outcome.count(different or ([said_after] if status_after else []), lost)
            outcome.seen = f"{_last(said, place)}. Make room, then run the same command again"
    outcome.seconds = time.monotonic() - begun
    yield outcome


def _blocks(directory: Path) -> int:
    """The bytes that files take on a tmpfs, which allocates whole pages."""
    return sum(
        -(-path.stat().st_size // 4096) * 4096 for path in directory.rglob("*") if path.is_file()
    )


def _last(said: str, scratch: Path) -> str:
    """The last line of the messages, without the scratch directory."""
    line = said.strip().splitlines()[-1] if said.strip() else ""
    return line.replace(f"{scratch}/", "").strip().rstrip(".")


def damaged_weights(directory: Path) -> Iterator[Outcome]:
    """Truncate a safetensors file, or flip a bit in its header or its numbers."""
    job = prepare(directory)
    _undisturbed(job)
    path = next((directory / "weights").rglob("model.safetensors"))
    whole = path.read_bytes()
    outcome = Outcome("corrupt safetensors file (truncated, or a bit flipped)")
    begun = time.monotonic()
    for n, content in enumerate(
        [whole[: len(whole) // 2], _flipped(whole, 10), _flipped(whole, len(whole) - 5), b""]
    ):
        path.write_bytes(content)
        own = job.at(directory / f"weights-{n}")
        status, said = own.run()
        refused = status == 2 and not own.out.exists() and "error: " in said
        path.write_bytes(whole)
        status, again = own.run()
        different, lost = compare(own.place, job.place, "svd", "parts")
        if not refused:
            different.append(f"was not refused: {said}")
        outcome.count([again] if status else different, lost)
        outcome.seen = f"{_last(said, directory)}. Get the file again, then run the same command"
    outcome.seconds = time.monotonic() - begun
    yield outcome


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
