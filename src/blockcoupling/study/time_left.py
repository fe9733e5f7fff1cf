"""How long a job of a study still takes: from its prompts, from similar jobs, from estimates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from blockcoupling.config.steps import steps
from blockcoupling.config.study import Study
from blockcoupling.store.part_names import part_files
from blockcoupling.study.planned import Planned
from blockcoupling.study.together import rule_needs

_START = 10.0
"""Seconds that the shortest job takes: Python and Snakemake start."""


@dataclass(frozen=True)
class Prompts:
    """How far a job is among its prompts.

    Attributes:
        done: Prompts that are finished.
        total: All of its prompts.
        lately: Prompts that were finished in the job's present attempt.
    """

    done: int
    total: int
    lately: int

    @property
    def share_left(self) -> float:
        """The share of its prompts that are not finished."""
        return 1 - self.done / self.total


def prompts_of(study: Study, job: Planned, since: float | None = None) -> Prompts | None:
    """Count the finished prompts of a job; None for a step that keeps no finished prompts.

    Args:
        study: The job's study.
        job: The job.
        since: When its present attempt began, in seconds of the epoch; None: it does not run.
    """
    row = next((each for each in steps() if each.name == job.rule), None)
    listed = study.results / "prompts" / f"{job.wildcards.get('dataset')}.jsonl"
    if row is None or row.parts is None or not listed.is_file():
        return None
    total = sum(1 for line in listed.read_text(encoding="utf-8").splitlines() if line.strip())
    if row.prompts is not None:
        total = min(total, row.prompts(study) or total)
    parts = study.results / row.parts.format(**job.wildcards)
    # Parts that are older than the job's plan were measured with other settings.
    planned = max(times([parts / "plan.json"]), default=0.0)
    made = times(part_files(parts))
    done = sum(each >= planned for each in made)
    return Prompts(min(total, done), total, sum(each >= (since or 0.0) for each in made))


def times(files: Iterable[str | Path]) -> list[float]:
    """The modification times of those files that exist; Snakemake may remove some meanwhile."""
    found = []
    for file in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            found.append(Path(file).stat().st_mtime)
    return found


def seconds_left(usual: float, elapsed: float | None, prompts: Prompts | None) -> float:
    """Estimate the seconds until a job ends.

    Args:
        usual: What such a job takes.
        elapsed: Seconds since it began; None: it is waiting in a queue.
        prompts: How far it is among its prompts.
    """
    if elapsed is None:
        return usual
    if prompts is None:
        return max(0.0, usual - elapsed)
    if prompts.lately:
        return (prompts.total - prompts.done) * elapsed / prompts.lately
    return max(0.0, usual * prompts.share_left - elapsed)


class Usual:
    """The usual seconds of a job: the mean of its step and model, else an estimate.

    An estimate is scaled by what the step took for other models.

    Args:
        study: The study.
        jobs: All of its jobs; the benchmark files of those that are finished are read.
    """

    def __init__(self, study: Study, jobs: Sequence[Planned]) -> None:
        self._study = study
        seconds: dict[tuple[str, str | None], list[float]] = defaultdict(list)
        estimated: dict[tuple[str, str | None], float] = {}
        for job in jobs:
            key = (job.rule, job.wildcards.get("model"))
            if job.benchmark and (took := seconds_taken(Path(job.benchmark))):
                seconds[key] += took
                estimated.setdefault(key, self._estimate(job))
        self.means = {key: fmean(took) for key, took in seconds.items()}
        """The mean seconds of finished jobs, by step and model."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for (rule, model), estimate in estimated.items():
            sums[rule][0] += self.means[rule, model]
            sums[rule][1] += estimate
        self._factor = {rule: took / estimate for rule, (took, estimate) in sums.items()}

    def __call__(self, job: Planned) -> float:
        """The usual seconds of a job."""
        own = self.means.get((job.rule, job.wildcards.get("model")))
        return self._estimate(job) * self._factor.get(job.rule, 1.0) if own is None else own

    def _estimate(self, job: Planned) -> float:
        needs = rule_needs(self._study, job.rule, job.wildcards)
        return max(_START, 60 * needs.expected)


def seconds_taken(benchmark: Path) -> list[float]:
    """What the attempts of a finished job took, from Snakemake's benchmark file; else nothing."""
    if not benchmark.is_file():
        return []
    head, *rows = benchmark.read_text().splitlines() or [""]
    return [float(row.split("\t")[head.split("\t").index("s")]) for row in rows]
