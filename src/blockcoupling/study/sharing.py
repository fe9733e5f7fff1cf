"""The lists of jobs that share a process, for `blockcoupling together`.

A job in a list has the command line that its own rule would run, its log and its benchmark.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from blockcoupling.config.study import Study
from blockcoupling.digests import json_digest
from blockcoupling.study.inside_snakemake import job_of_rule
from blockcoupling.study.options import as_json
from blockcoupling.study.settings import Settings
from blockcoupling.study.together import jobs_of


def jobs_of_chunk(workflow: Any, study: Study, settings: Settings, chunk: str) -> str:
    """All jobs of models that share a process, as JSON: a chain for each model."""
    return as_json(
        [
            _by_itself(workflow, settings, step.name, wildcards, wildcards["model"])
            for step, wildcards in jobs_of(study, study.chunks()[chunk])
        ]
    )


def jobs_of_checkpoint(
    workflow: Any, study: Study, settings: Settings, model: str, checkpoint: str
) -> str:
    """The extractions of a checkpoint from all of its datasets, as JSON: each a chain."""
    of = {"model": model, "checkpoint": checkpoint}
    return as_json(
        [
            _by_itself(workflow, settings, "extract", {**of, "dataset": dataset}, dataset)
            for dataset in study.datasets_of(model)
        ]
    )


def _by_itself(
    workflow: Any, settings: Settings, rule: str, wildcards: Mapping[str, str], chain: str
) -> dict[str, Any]:
    job = job_of_rule(workflow, rule, wildcards)
    words, _, _ = job.command.rpartition(" > ")
    return {
        "name": f"{rule} of {', '.join(wildcards.values())}",
        "chain": chain,
        "words": shlex.split(words)[1:],
        "log": job.log,
        "benchmark": job.benchmark,
        "settings": json_digest(settings.of(rule, wildcards)),
    }
