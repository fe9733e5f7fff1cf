"""Which jobs a study has, and which of them Snakemake would run now: Snakemake's own answer.

It makes two dry runs, and this project's logger plugin lists their jobs: with `--forceall` all jobs
of the study, without it those that it would run. Neither locks the directory or starts a job.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockcoupling.errors import UserError

_SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
"""Where Snakemake looks, in this order."""
_DRY_RUN = ("--dry-run", "--nolock", "--rerun-incomplete", "--logger", "blockcoupling")


@dataclass(frozen=True)
class Planned:
    """A job of a study.

    Attributes:
        rule: Its rule.
        wildcards: Its model, checkpoint, dataset, figure, …, by name.
        outputs: The files that it makes.
        reason: Why Snakemake would run it; empty: it would not.
        log: The file that its verb writes messages to.
        benchmark: The file that Snakemake writes its duration to.
    """

    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    reason: str = ""
    log: str | None = None
    benchmark: str | None = None


def planned(config: Path, snakefile: Path | None = None) -> list[Planned]:
    """Ask Snakemake for all jobs of a study, in the working directory.

    Args:
        config: The study's configuration.
        snakefile: The workflow; by default the one that `snakemake` takes here.

    Raises:
        UserError: No workflow found here, or it cannot be loaded.
    """
    if snakefile is None and not any(Path(each).is_file() for each in _SNAKEFILES):
        raise UserError(
            f"no Snakefile found in {Path.cwd()}: run this where you run `snakemake`, or name "
            "it with --snakefile"
        )
    words = ["--configfile", str(config)]
    words += [] if snakefile is None else ["--snakefile", str(snakefile)]
    processes = [_dry_run(*words), _dry_run("--forceall", *words)]
    needed, every = map(_jobs, processes)
    reasons = {each["output"][0]: each["reason"] for each in needed if each["output"]}
    return [
        Planned(
            rule=each["rule_name"],
            wildcards=each["wildcards"],
            outputs=tuple(each["output"]),
            reason=reasons.get(each["output"][0], ""),
            log=next(iter(each["log"]), None),
            benchmark=each["benchmark"],
        )
        for each in every
        if each["output"]
    ]


def _dry_run(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "snakemake", *_DRY_RUN, "--logger-blockcoupling-jobs"]
    return subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _jobs(process: subprocess.Popen[str]) -> Sequence[dict[str, Any]]:
    listed, errors = process.communicate()
    if process.returncode != 0:
        said = errors.strip().splitlines() or ["it gives no reason"]
        raise UserError("Snakemake cannot plan this study: " + "\n".join(said[-5:]))
    return [json.loads(line) for line in listed.splitlines()]
