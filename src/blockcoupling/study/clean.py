"""What a study keeps on disk that it does not need any more, and removing that."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blockcoupling.config.steps import Step, steps
from blockcoupling.config.study import Study
from blockcoupling.errors import UserError
from blockcoupling.store.part_names import NOTE, PLAN
from blockcoupling.study.running import now
from blockcoupling.wording import size

LOGS = (Path(".snakemake/log"), Path(".snakemake/slurm_logs"))
"""Snakemake's own, in the directory where it runs; what jobs say is below the results."""


@dataclass(frozen=True)
class Spare:
    """Files that can go.

    Attributes:
        what: What they are.
        paths: The files and directories.
        bytes: What they take on disk.
    """

    what: str
    paths: tuple[Path, ...]
    bytes: int


def spare(study: Study) -> list[Spare]:
    """Find what can go: results stay, and nothing has to be recomputed for them.

    Parts of a job (finished prompts, states of a training) can go once everything is there that the
    study makes of the same model, checkpoint and dataset; and parts of jobs that the study does not
    have any more. Checkpoints that are added later then begin from the start; prompts that are
    added later are measured alone, because the others are in the joined store.
    """
    found = [
        ("finished parts of joined stores, states of trainings", list(_parts(study))),
        ("logs of Snakemake", [path for path in LOGS if path.exists()]),
    ]
    return [Spare(what, tuple(paths), bytes_of(paths)) for what, paths in found if paths]


def free(spares: Iterable[Spare]) -> None:
    """Remove what can go.

    Raises:
        UserError: Snakemake runs in this directory.
    """
    if now().processes:
        raise UserError("Snakemake is running in this directory: clean the study when it has ended")
    for each in spares:
        for path in each.paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def bytes_of(paths: Iterable[Path]) -> int:
    """What files, and all files in directories, take on disk."""
    files = (
        file
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file() and not file.is_symlink()
    )
    return sum(512 * file.stat().st_blocks for file in files)


def as_text(study: Study, spares: Iterable[Spare], config: Path, freed: bool) -> str:
    """What the study takes, what of it can go, and how."""
    lines = [f"{size(each.bytes)}  {each.what}" for each in spares]
    total = f"{study.results}: {size(bytes_of([study.results]))} on disk"
    if not lines:
        return f"{total}; nothing to free"
    if freed:
        return "\n".join([*lines, f"Removed. {total}"])
    return "\n".join([total, *lines, f"To remove it: blockcoupling clean {config} --yes"])


def _parts(study: Study) -> Iterator[Path]:
    unfinished = _unfinished(study)
    for row in (each for each in steps() if each.parts is not None):
        own = set()
        for wildcards in row.wildcards(study):
            directory = _parts_of(study, row, wildcards)
            own.add(directory)
            needed = any(wildcards.items() <= job.items() for job in unfinished[wildcards["model"]])
            if directory.is_dir() and not needed:
                kept = {study.results / each.format(**wildcards) for each in row.outputs}
                kept |= {directory / name for name in (PLAN, NOTE)}
                yield from (each for each in sorted(directory.iterdir()) if each not in kept)
        anywhere = _parts_of(study, row, dict.fromkeys(row.per, "*")).relative_to(study.results)
        yield from (each for each in sorted(study.results.glob(str(anywhere))) if each not in own)


def _parts_of(study: Study, row: Step, wildcards: Mapping[str, str]) -> Path:
    assert row.parts is not None
    return study.results / row.parts.format(**wildcards)


def _unfinished(study: Study) -> defaultdict[str, list[dict[str, str]]]:
    """By model, the wildcards of the jobs that lack a file."""
    found = defaultdict(list)
    for row in (each for each in steps() if "model" in each.per):
        for job in row.wildcards(study):
            if not all((study.results / file.format(**job)).is_file() for file in row.outputs):
                found[job["model"]].append(job)
    return found
