"""A command line run in this process as if it had one of its own: its log, and what it took."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from typer.exceptions import TyperException

from blockcoupling.cli.app import app

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_COLUMNS = ("s", "h:m:s", "max_rss", "max_vms", "max_uss", "max_pss")
_MORE = ("io_in", "io_out", "mean_load", "cpu_time")


def run_words(words: Sequence[str]) -> int:
    """Run one verb; returns its exit status, having written why where it is not 0."""
    try:
        found = typer.main.get_command(app)(list(words), standalone_mode=False)
    except TyperException as error:  # an option that there is not
        typer.echo(f"error: {error}", err=True)
        return 2
    except Exception:
        logging.getLogger(__name__).exception("%s ended with an error of the program", words[0])
        return 1
    return found if isinstance(found, int) else 0


@contextmanager
def logged(log: Path) -> Iterator[None]:
    """Send standard output and error to a file, also that of libraries in C."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    before = [os.dup(number) for number in (1, 2)]
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
            _flush()
    finally:
        _flush()
        for number, old in zip((1, 2), before, strict=True):
            os.dup2(old, number)
            os.close(old)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


@contextmanager
def benchmarked(file: Path) -> Iterator[None]:
    """Write what the body took as Snakemake writes it of a job of its own."""
    wall, cpu, forgot = time.perf_counter(), time.process_time(), _forget_peak()
    yield
    took, cpu_took = time.perf_counter() - wall, time.process_time() - cpu
    peak = _peak_mb() if forgot else None  # with what the process held before
    file.parent.mkdir(parents=True, exist_ok=True)
    minutes, seconds = divmod(int(took), 60)
    rss = "NA" if peak is None else f"{peak:.2f}"
    load = 100 * cpu_took / max(took, 1e-9)
    row = [
        *(f"{took:.4f}", f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}", rss),
        *("NA", "NA", "NA", "NA", "NA", f"{load:.2f}", f"{cpu_took:.2f}"),
    ]
    file.write_text("\t".join([*_COLUMNS, *_MORE]) + "\n" + "\t".join(row) + "\n")


def _forget_peak() -> bool:
    """Reset the peak of resident memory; False if the system cannot."""
    try:
        _FORGET.write_text("5")
    except OSError:
        return False
    return True


def _peak_mb() -> float | None:
    lines = _STATUS.read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
