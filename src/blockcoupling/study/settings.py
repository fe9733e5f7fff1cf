"""What decides the results of each job, kept among the results as inputs of the jobs.

Snakemake keeps the parameters of jobs in `.snakemake` alone, of the directory that it ran in. For
every job there is therefore a file `<results>/settings/RULE/WILDCARDS.DIGEST.json`, named after its
own content. Other settings are another file, newer than what was made with those before: Snakemake
makes it again, whatever it remembers. To compare all jobs takes one listing for each rule.

Only the Snakemake that was started writes them. The processes of its jobs read the configuration
again, and compare: a job whose settings have changed since refuses.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blockcoupling.config.steps import entered_by, step, steps
from blockcoupling.config.study import Study
from blockcoupling.digests import json_digest
from blockcoupling.errors import UserError
from blockcoupling.study import inputs
from blockcoupling.study.by_name import apply, taken
from blockcoupling.study.options import options_of
from blockcoupling.study.together import jobs_of

TOGETHER = "together"
"""The rule, of a chunk of models, that lists jobs which share a process."""

_CONTENT: dict[str, Callable[..., Any]] = {
    "train": inputs.content_of_training,
    "checkpoint": inputs.content_of_training,
    "image_checkpoint": inputs.content_of_training,
    "weights": inputs.content_of_model,
    "prompts": inputs.content_of_prompts,
    "score": inputs.content_of_scores,
    "damage": inputs.content_of_damage,
}

_LOCKS = Path(".snakemake/locks")

_Job = tuple[str, str]
"""A rule, and its wildcards in the order of its paths, joined."""


def running() -> bool:
    """Whether Snakemake runs in this directory, or was killed in it."""
    return _LOCKS.is_dir() and any(_LOCKS.iterdir())


class Settings:
    """The settings of all jobs of a study, and their files.

    Args:
        study: The study.
        main: Whether this process is the Snakemake that was started, not one of a single job.
    """

    def __init__(self, study: Study, main: bool) -> None:
        self._study = study
        self._main = main
        self._place = study.results / "settings"
        self._chunked = {model for models in study.chunks().values() for model in models}
        self._content: dict[tuple[Any, ...], Any] = {}
        self._files: dict[_Job, str] = {}

    def write(self) -> None:
        """Write what differs; a dry run and `status` do so too, because they decide by it.

        While Snakemake runs in this directory, the files of its jobs stay as it wrote them.

        Raises:
            UserError: The results cannot be written.
        """
        busy = running()
        there = {rule: _listed(self._place / rule) for rule in self._rules()}
        for rule, wildcards in self._jobs():
            found = self.of(rule, wildcards)
            name = _name(rule, wildcards)
            before = there[rule].get(name, [])
            file = f"{name}.{json_digest(found)[:12]}.json"
            if busy and before:
                file = before[0]
            elif before != [file]:
                _replace(self._place / rule, before, file, found)
            self._files[rule, name] = str(self._place / rule / file)

    def file(self, rule: str, wildcards: Mapping[str, str]) -> list[str]:
        """The file of a job, as its input; none of a job that is in the list of a chunk.

        Raises:
            UserError: The job was submitted with other settings than the configuration has now.
        """
        if rule != TOGETHER and wildcards.get("model") in self._chunked:
            return []
        name = _name(rule, wildcards)
        if known := self._files.get((rule, name)):
            return [known]
        file = f"{name}.{json_digest(self.of(rule, wildcards))[:12]}.json"
        there = [] if self._main else _listed(self._place / rule).get(name, [])
        if there and file not in there:
            raise UserError(
                f"the configuration has changed since the run began: {rule} of {name} has other "
                "settings now than when it was submitted; run `snakemake` again with the "
                "configuration that you want"
            )
        return [str(self._place / rule / file)]

    def of(self, rule: str, wildcards: Mapping[str, str]) -> dict[str, Any]:
        """What decides the results of a job: its options, and the content of the user's files."""
        if rule == TOGETHER:
            jobs = jobs_of(self._study, self._study.chunks()[wildcards["chunk"]])
            return {
                f"{row.name} {_name(row.name, job)}": self.of(row.name, job) for row, job in jobs
            }
        found: dict[str, Any] = {"options": options_of(self._study, rule, wildcards)}
        if rule in _CONTENT:
            found["content"] = self._content_of(rule, wildcards)
        if step(rule).version > 1:
            found["version"] = step(rule).version
        if step(rule).catalog:
            found["entries"] = self._entries_of(rule)
        return found

    def _content_of(self, rule: str, wildcards: Mapping[str, str]) -> Any:
        """Read once for all jobs that it is the same for."""
        function = _CONTENT[rule]
        key = (function, *taken(function, wildcards).values())
        if key not in self._content:
            self._content[key] = apply(function, self._study, wildcards)
        return self._content[key]

    def _entries_of(self, rule: str) -> dict[str, list[str]]:
        """Which jobs a catalog has the entries of."""
        return {
            row.name: [_name(row.name, job) for job in row.wildcards(self._study)]
            for row in entered_by(rule)
        }

    def _rules(self) -> list[str]:
        return [TOGETHER, *(row.name for row in steps())]

    def _jobs(self) -> Iterator[tuple[str, dict[str, str]]]:
        yield from ((TOGETHER, {"chunk": chunk}) for chunk in self._study.chunks())
        for row in steps():
            for wildcards in row.wildcards(self._study):
                if wildcards.get("model") not in self._chunked:
                    yield row.name, wildcards


def _name(rule: str, wildcards: Mapping[str, str]) -> str:
    """Beginning of the name of a job's file."""
    per = ("chunk",) if rule == TOGETHER else step(rule).per
    return ",".join(wildcards[each] for each in per) or rule


def _listed(directory: Path) -> dict[str, list[str]]:
    """The files of settings in a directory, by the job that they are of."""
    found: dict[str, list[str]] = {}
    if directory.is_dir():
        with os.scandir(directory) as files:
            for file in files:
                if file.name.endswith(".json"):
                    found.setdefault(file.name.rsplit(".", 2)[0], []).append(file.name)
    return found


def _replace(directory: Path, before: list[str], file: str, settings: Mapping[str, Any]) -> None:
    """Write a file in the place of others; several processes may do so at once."""
    fresh = directory / f".tmp-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # First of all: settings that come back later must be newer than what was made meanwhile.
        for each in before:
            (directory / each).unlink(missing_ok=True)
        fresh.write_text(json.dumps(settings, sort_keys=True, indent=1) + "\n")
        fresh.replace(directory / file)
    except OSError as error:
        raise UserError(f"cannot write {directory / file}: {error.strerror}") from error
