"""All that the workflow reads of Snakemake where Snakemake has no public interface for it.

`pyproject.toml` bounds Snakemake's version because of this file. When a version changes one of
these things, tests/unit/study/test_inside_snakemake.py fails and names this file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from blockcoupling.errors import UserError


@dataclass(frozen=True)
class RuleJob:
    """A job that a rule would have for some wildcards, in or out of the graph of jobs.

    Attributes:
        command: Its shell command.
        log: Its first log file.
        benchmark: Its benchmark file.
    """

    command: str
    log: str
    benchmark: str


@contextmanager
def _inside(what: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, ImportError, TypeError) as error:
        from importlib.metadata import version

        raise UserError(
            f"snakemake {version('snakemake')} no longer gives {what} ({error}); "
            f"see {Path(__file__).name}, and install the version of requirements.lock meanwhile"
        ) from error


def configuration_files(workflow: Any) -> list[str]:
    """The files that were given with `--configfile`."""
    with _inside("the files of --configfile"):
        return list(workflow.overwrite_configfiles)


def configuration_words(workflow: Any) -> list[str]:
    """The words of `--configfile` and `--config`, with files as seen from here."""
    with _inside("the words of --config"):
        files = [os.path.relpath(each) for each in workflow.overwrite_configfiles]
        given = [
            f"{key}={_as_word(value)}" for key, value in workflow.config_settings.config.items()
        ]
    return [
        *(["--configfile", *files] if files else []),
        *(["--config", *given] if given else []),
    ]


def _as_word(value: Any) -> str:
    """A value of `--config`, written so that Snakemake reads the same value."""
    if value is None:
        return ""
    # It reads True and not JSON's true; values in lists and mappings are text to it.
    return str(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def in_main_process(workflow: Any) -> bool:
    """Whether this process is the Snakemake that was started, not one of a single job."""
    with _inside("whether a process is the main one"):
        return bool(workflow.is_main_process)


def on_a_node(workflow: Any) -> bool:
    """Whether this process runs one job that an executor has sent elsewhere."""
    with _inside("whether a job runs elsewhere"):
        return bool(workflow.remote_exec)


def set_resources(workflow: Any) -> dict[str, dict[str, Any]]:
    """What `--set-resources` has set, by rule and resource: as typed, or a function."""
    with _inside("what --set-resources has set"):
        return {
            rule: {name: getattr(value, "raw", value) for name, value in resources.items()}
            for rule, resources in workflow.resource_settings.overwrite_resources.items()
        }


def resource_of_rule(workflow: Any, rule: str, name: str) -> str | None:
    """A resource that all jobs of a rule ask for, from the profile or the command line."""
    with _inside("the resources of a rule"):
        given = workflow.get_rule(rule).resources
        return str(given[name].raw).strip("'\"") if name in given else None


def job_of_rule(workflow: Any, rule: str, wildcards: Mapping[str, str]) -> RuleJob:
    """The job that a rule would have for some wildcards."""
    with _inside("the job of a rule"):
        from snakemake.jobs import Job

        graph = SimpleNamespace(workflow=workflow, jobid=lambda job: 0)
        job = Job(workflow.get_rule(rule), graph, dict(wildcards))
        return RuleJob(job.shellcmd, str(job.log[0]), str(job.benchmark))
