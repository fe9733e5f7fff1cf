"""Why Slurm ended a job, added to Snakemake's message that the job failed.

Without accounting, Snakemake reports a job that ran out of memory as FAILED and no more. Slurm
writes the reason at the end of the job's output; if it is not there, accounting may have it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_NUMBER = re.compile(r"SLURM-job '(\d+)'")
_OF_MEMORY = re.compile(
    r"oom[-_ ]kill|out[ _]of[ _]memory|exceeded (?:job|step)? ?memory limit|"
    r"memory limit .*being killed|DUE TO MEMORY",
    re.I,
)
_OF_TIME = re.compile(r"DUE TO TIME LIMIT|\bTIMEOUT\b", re.I)
_OF_NODE = re.compile(r"DUE TO NODE FAIL|NODE_FAIL", re.I)
_MORE = (
    "each attempt asks for more, unless --set-resources gives a number without `* attempt` "
    "(docs/cluster.md)"
)
_GROWING = {"mem_mb": "MB", "mem_mib": "MB", "mem": "", "runtime": "minutes"}


def explained(message: str, logs: Iterable[str]) -> str:
    """Add to Snakemake's message about a failed job why Slurm ended it, if Slurm says so.

    Args:
        message: Snakemake's message; returned as it is if it is not about a job in Slurm.
        logs: The job's log files, with Slurm's own among them.
    """
    number = _NUMBER.search(message)
    if number is None:
        return message
    said = "\n".join(_end(Path(log)) for log in logs)
    why = _why(said) or _why(message) or _why(recorded := _accounting(number[1]) or "")
    if why is not None:
        return f"{message} Why: {why}"
    if recorded:
        return message
    return (
        f"{message} Accounting (sacct) is off here, and Slurm's log of the job gives no reason. "
        "See the job's own log; if it ends without an error message, the job was killed, most "
        "often because it ran out of memory."
    )


def _why(said: str) -> str | None:
    """The reason that Slurm gives for ending a job, as a sentence; None if it gives none."""
    if _OF_MEMORY.search(said):
        return f"out of memory: it took more than it asked for; {_MORE}."
    if _OF_TIME.search(said):
        return f"out of time: it took longer than it asked for; {_MORE}."
    if _OF_NODE.search(said):
        return "its node failed."
    return None


def _end(log: Path) -> str:
    """The end of a log; empty if it cannot be read."""
    with suppress(OSError):
        return log.read_text(errors="replace")[-4000:]
    return ""


def _accounting(number: str) -> str | None:
    """The state of a job in Slurm's accounting; None without accounting."""
    if shutil.which("sacct") is None:
        return None
    command = ["sacct", "--noheader", "--parsable2", "--format=State", f"--jobs={number}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def fixed_requests(given: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A warning for each value of `--set-resources` that does not grow with the attempt.

    Args:
        given: By rule and resource, what was set: a number, an expression or a function.
    """
    sentences = []
    for rule, resources in given.items():
        for name, unit in _GROWING.items():
            value = resources.get(name)
            text = str(value)
            if value is None or callable(value) or "attempt" in text:
                continue
            amount = f"{text} {unit}".strip()
            sentences.append(
                f"{rule}:{name}={text} is the same at every attempt: a job that needs more than "
                f"{amount} fails again. Use --set-resources '{rule}:{name}={text} * attempt' "
                f"(in a profile: {name}: {text} * attempt)"
            )
    return sentences
