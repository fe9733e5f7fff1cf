"""Running Snakemake as a user would, in a directory of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
STUDY = Path(__file__).with_name("study.yaml")


@dataclass(frozen=True)
class Run:
    """How a run of Snakemake ended, and what it said."""

    status: int
    said: str

    @property
    def jobs(self) -> dict[str, int]:
        """Rule -> number of jobs, as Snakemake announced them; empty if there were none."""
        table = re.search(r"^Job stats:\njob +count\n[- ]+\n(.*?)^total ", self.said, re.M | re.S)
        return {rule: int(n) for rule, n in re.findall(r"(\S+) +(\d+)", table[1] if table else "")}


@dataclass(frozen=True)
class Workplace:
    """A directory with a study's configuration in it, away from the repository."""

    directory: Path

    @property
    def results(self) -> Path:
        return self.directory / "results" / "seconds"

    def configure(self, file: str = "study.yaml", **changes: Any) -> None:
        """Write the study of seconds, with sections replaced (or, given None, removed)."""
        study = yaml.safe_load(STUDY.read_text()) | changes
        kept = {key: value for key, value in study.items() if value is not None}
        (self.directory / file).write_text(yaml.safe_dump(kept))

    def planned(self, **changes: Any) -> dict[str, int]:
        """The jobs that a changed study would have run here; nothing is run."""
        self.configure("changed.yaml", **changes)
        run = self.snakemake("--dry-run", study="changed.yaml")
        assert run.status == 0, run.said
        return run.jobs

    def configuration(self) -> dict[str, Any]:
        return yaml.safe_load((self.directory / "study.yaml").read_text())

    def command(self, *words: str, study: str = "study.yaml") -> list[str]:
        snakemake = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(REPOSITORY / "Snakefile"),
        ]
        return [*snakemake, *words, "--configfile", study]

    def snakemake(self, *words: str, study: str = "study.yaml") -> Run:
        ended = subprocess.run(
            self.command(*words, study=study),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Run(ended.returncode, ended.stdout)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start Snakemake in a process group of its own, to be killed with `kill`."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def written(self) -> dict[str, int]:
        """When each file of the results was written, in ns; logs and Snakemake's own left out."""
        return {
            str(path.relative_to(self.results)): path.stat().st_mtime_ns
            for path in self.results.rglob("*")
            if path.is_file() and path.name != ".snakemake_timestamp"
        }

    def files(self) -> Iterator[Path]:
        """Every file: results, logs, catalog, and what Snakemake keeps."""
        return (path for path in self.directory.rglob("*") if path.is_file())

    def holding(self, *words: str) -> list[Path]:
        """The files that hold one of these words."""
        wanted = [word.encode() for word in words]
        return [path for path in self.files() if any(word in path.read_bytes() for word in wanted)]


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started, at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
