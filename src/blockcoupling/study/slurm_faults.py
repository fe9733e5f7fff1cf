"""Why Slurm ended a job, said where Snakemake says that it failed.

Without accounting Snakemake knows of a job that took too much memory no more than FAILED. What
Slurm wrote at the end of the job's own output tells; where that says nothing, accounting may.
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
_MEMORY = "it took more memory than it asked for"
_MORE = (
    "each attempt asks for more, unless --set-resources gives a number without `* attempt` "
    "(docs/cluster.md)"
)
_GROWING = {"mem_mb": "MB", "mem_mib": "MB", "mem": "", "runtime": "minutes"}


def explained(message: str, logs: Iterable[str]) -> str:
    """What Snakemake says of a job of Slurm that failed, and why it did, as far as Slurm tells.

    Args:
        message: Snakemake's; one that is about no job of Slurm stays as it is.
        logs: Of the job; Slurm's own is among them.
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
        f"{message} Accounting (sacct) is off here, and Slurm's log of the job does not say why: "
        "look into the job's own log; one that ends without a word was killed, most often for want "
        "of memory."
    )


def _why(said: str) -> str | None:
    """Why a job was ended, in a sentence, from what Slurm wrote; None: it does not say."""
    if _OF_MEMORY.search(said):
        return f"out of memory: {_MEMORY}; {_MORE}."
    if _OF_TIME.search(said):
        return f"out of time: it took longer than it asked for; {_MORE}."
    if _OF_NODE.search(said):
        return "its node failed."
    return None


def _end(log: Path) -> str:
    """The last lines of a log; nothing where it cannot be read."""
    with suppress(OSError):
        return log.read_text(errors="replace")[-4000:]
    return ""


def _accounting(number: str) -> str | None:
    """The state of a job that accounting has written down; None: there is no accounting."""
    if shutil.which("sacct") is None:
        return None
    command = ["sacct", "--noheader", "--parsable2", "--format=State", f"--jobs={number}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def fixed_requests(given: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What of `--set-resources` stays the same at every attempt, each with what to type instead.

    Args:
        given: By rule, what Snakemake was told of its resources: numbers, or what depends on the
            attempt.
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
                f"{rule}:{name}={text} is the same at every attempt: a job that is killed for want "
                f"of more than {amount} is submitted again with as little. Type --set-resources "
                f"'{rule}:{name}={text} * attempt' (in a profile: {name}: {text} * attempt)"
            )
    return sentences
